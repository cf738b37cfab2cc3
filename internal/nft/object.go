package nft

import "github.com/connsleuth/connsleuth/internal/nfnl"

// Attributes of an object (enum nft_object_attributes, nft_ct_helper_attributes).
const (
	objTable = 1 // NFTA_OBJ_TABLE
	objName  = 2 // NFTA_OBJ_NAME
	objType  = 3 // NFTA_OBJ_TYPE
	objData  = 4 // NFTA_OBJ_DATA

	objectCTHelper = 3 // NFT_OBJECT_CT_HELPER

	helperName    = 1 // NFTA_CT_HELPER_NAME
	helperL4Proto = 3 // NFTA_CT_HELPER_L4PROTO
)

// helper adds the object. Without NFTA_CT_HELPER_L3PROTO it is for the
// family of the table.
func (b *batch) helper(t Table, h CTHelper) {
	m := nfnl.NewNetfilter(subsystem, newObject, nfnl.Create, uint8(t.Family))
	m.String(objTable, t.Name)
	m.String(objName, h.Name)
	m.U32(objType, objectCTHelper)
	m.Nested(objData, func() {
		m.String(helperName, h.Helper)
		m.U8(helperL4Proto, h.Proto)
	})
	b.add(m, object{name: helperObject(t, h), lacks: "helper " + h.Helper + " for this protocol"})
}

// object refers to an object of the table by its name.
func (e exprs) object(typ uint32, name string) {
	e.add("objref", func() {
		e.U32(1, typ)     // NFTA_OBJREF_IMM_TYPE
		e.String(2, name) // NFTA_OBJREF_IMM_NAME
	})
}

// target is an iptables target (nft_compat).
func (e exprs) target(name string, revision uint32, info []byte) {
	e.add("target", func() {
		e.String(1, name)  // NFTA_TARGET_NAME
		e.U32(2, revision) // NFTA_TARGET_REV
		e.Bytes(3, info)   // NFTA_TARGET_INFO
	})
}

// maxPolicy is the longest name of a timeout policy: the field that
// struct xt_ct_target_info_v1 has for it, without its NUL.
const maxPolicy = 31

// ctTargetInfo is struct xt_ct_target_info_v1 with a timeout policy: flags and
// zone (16 bits each), two event masks (32 bits each), the names of a helper
// (16 bytes) and of the policy (32 bytes), and 8 bytes, aligned to 8, that are
// the kernel's own.
func ctTargetInfo(policy string) []byte {
	const size, timeoutAt = 72, 28
	info := make([]byte, size)
	copy(info[timeoutAt:timeoutAt+maxPolicy], policy)
	return info
}
