package nft

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const subsystem = 10 // NFNL_SUBSYS_NFTABLES

// Messages of a batch (linux/netfilter/nfnetlink.h); their type has no
// subsystem, their nfgenmsg.res_id does.
const (
	batchBegin = 0x10 // NFNL_MSG_BATCH_BEGIN
	batchEnd   = 0x11 // NFNL_MSG_BATCH_END
)

// Messages (enum nf_tables_msg_types).
const (
	newTable = 0 // NFT_MSG_NEWTABLE
	getTable = 1 // NFT_MSG_GETTABLE
	delTable = 2 // NFT_MSG_DELTABLE
	newChain = 3 // NFT_MSG_NEWCHAIN
	getChain = 4 // NFT_MSG_GETCHAIN
	newRule  = 6 // NFT_MSG_NEWRULE
	getRule  = 7 // NFT_MSG_GETRULE

	getSetElem = 13 // NFT_MSG_GETSETELEM

	getGen    = 16 // NFT_MSG_GETGEN
	newObject = 18 // NFT_MSG_NEWOBJ
)

const (
	tableName     = 1 // NFTA_TABLE_NAME
	tableFlags    = 2 // NFTA_TABLE_FLAGS
	tableHandle   = 4 // NFTA_TABLE_HANDLE
	tableUserdata = 6 // NFTA_TABLE_USERDATA
	tableOwner    = 7 // NFTA_TABLE_OWNER

	flagDormant = 1 // NFT_TABLE_F_DORMANT
	flagOwner   = 2 // NFT_TABLE_F_OWNER

	chainTable  = 1 // NFTA_CHAIN_TABLE
	chainHandle = 2 // NFTA_CHAIN_HANDLE
	chainName   = 3 // NFTA_CHAIN_NAME
	chainHook   = 4 // NFTA_CHAIN_HOOK
	chainPolicy = 5 // NFTA_CHAIN_POLICY
	chainType   = 7 // NFTA_CHAIN_TYPE

	hookNumber   = 1 // NFTA_HOOK_HOOKNUM
	hookPriority = 2 // NFTA_HOOK_PRIORITY

	ruleTable       = 1 // NFTA_RULE_TABLE
	ruleChain       = 2 // NFTA_RULE_CHAIN
	ruleHandle      = 3 // NFTA_RULE_HANDLE
	ruleExpressions = 4 // NFTA_RULE_EXPRESSIONS
	ruleCompat      = 5 // NFTA_RULE_COMPAT
	ruleUserdata    = 7 // NFTA_RULE_USERDATA

	compatProto = 1 // NFTA_RULE_COMPAT_PROTO
	compatFlags = 2 // NFTA_RULE_COMPAT_FLAGS

	udataComment = 0 // NFTNL_UDATA_RULE_COMMENT, NFTNL_UDATA_TABLE_COMMENT
)

// batch is a transaction in the making: messages, and for each the object it
// is about.
type batch struct {
	msgs    []nfnl.Message
	objects []object
}

type object struct {
	name string
	// lacks is what the kernel does not have if it says ENOENT: the objects
	// that this one belongs to are there, they came before it.
	lacks string
	flag  bool // a table with flags
}

func newBatch() *batch {
	b := &batch{}
	b.frame(batchBegin)
	return b
}

// frame adds the message that begins or ends the batch: its nfgenmsg carries
// the subsystem.
func (b *batch) frame(typ uint16) {
	m := nfnl.NewBuilder(typ, 0)
	m.Raw([]byte{0, 0, 0, subsystem})
	b.add(m, object{})
}

func (b *batch) add(m *nfnl.Builder, about object) {
	b.msgs = append(b.msgs, m.Message())
	b.objects = append(b.objects, about)
}

// end closes the batch. Only the last message is acknowledged: one answer for
// each would overrun the receive buffer.
func (b *batch) end() []nfnl.Message {
	b.msgs[len(b.msgs)-1].Flags |= nfnl.Ack
	b.frame(batchEnd)
	return b.msgs
}

// replace makes the table anew. The first add is there so that the delete
// finds something.
func (b *batch) replace(t Table, flags uint32) {
	b.table(newTable, nfnl.Create, Table{Family: t.Family, Name: t.Name}, 0)
	b.table(delTable, 0, Table{Family: t.Family, Name: t.Name}, 0)
	b.table(newTable, nfnl.Create, t, flags)
	for _, h := range t.Helpers {
		b.helper(t, h)
	}
	for _, c := range t.Chains {
		b.chain(t, c)
	}
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			b.rule(t, c, i, r)
		}
	}
}

func (b *batch) table(op uint8, how uint16, t Table, flags uint32) {
	m := nfnl.NewNetfilter(subsystem, op, how, uint8(t.Family))
	m.String(tableName, t.Name)
	if flags != 0 {
		m.U32(tableFlags, flags)
	}
	if t.Comment != "" {
		m.Bytes(tableUserdata, comment(t.Comment))
	}
	b.add(m, object{name: tableObject(t), flag: flags != 0})
}

func (b *batch) chain(t Table, c Chain) {
	m := nfnl.NewNetfilter(subsystem, newChain, nfnl.Create, uint8(t.Family))
	m.String(chainTable, t.Name)
	m.String(chainName, c.Name)
	m.Nested(chainHook, func() {
		m.U32(hookNumber, c.Hook.number())
		m.U32(hookPriority, uint32(c.Priority))
	})
	policy := uint32(nfAccept)
	if c.Policy == PolicyDrop {
		policy = nfDrop
	}
	m.U32(chainPolicy, policy)
	m.String(chainType, c.Type.String())
	b.add(m, object{name: chainObject(t, c), lacks: "its type"})
}

func (b *batch) rule(t Table, c Chain, i int, r Rule) {
	m := nfnl.NewNetfilter(subsystem, newRule, nfnl.Create|nfnl.Append, uint8(t.Family))
	m.String(ruleTable, t.Name)
	m.String(ruleChain, c.Name)
	m.Nested(ruleExpressions, func() {
		e := exprs{m}
		e.match(t.Family, r)
		e.act(r)
	})
	if r.TimeoutPolicy != "" { // the target asks for the rule's protocol
		m.Nested(ruleCompat, func() {
			m.U32(compatProto, uint32(r.Proto))
			m.U32(compatFlags, 0)
		})
	}
	if r.Comment != "" {
		m.Bytes(ruleUserdata, comment(r.Comment))
	}
	lacks := "one of its expressions"
	if r.TimeoutPolicy != "" {
		lacks += ", or timeout policy " + r.TimeoutPolicy
	}
	b.add(m, object{name: ruleObject(t, c, i), lacks: lacks})
}

// comment is the userdata that nft(8) shows: type, length, string with NUL.
func comment(s string) []byte {
	b := append([]byte{udataComment, byte(len(s) + 1)}, s...)
	return append(b, 0)
}

// match writes the rule's conditions, the cheap and decisive ones first.
func (e exprs) match(family Family, r Rule) {
	e.iface(metaIIFName, r.InIface)
	e.iface(metaOIFName, r.OutIface)
	if four, six := r.families(); family == INet && (four || six) {
		want := IPv4
		if six {
			want = IPv6
		}
		e.meta(metaNFProto)
		e.compare(equal, []byte{byte(want)})
	}
	e.addr(r.Src, 12, 8)  // offsets of saddr in struct iphdr and struct ipv6hdr
	e.addr(r.Dst, 16, 24) // and of daddr
	if r.Proto != 0 {
		e.meta(metaL4Proto)
		e.compare(equal, []byte{r.Proto})
	}
	e.port(0, r.SrcPort)
	e.port(2, r.DstPort)
	e.flags(r.TCPFlags)
	if r.ICMPType != 0 {
		e.payload(transportHeader, 0, 1)
		e.compare(equal, []byte{r.ICMPType})
	}
	if r.CTState != 0 {
		e.ct(ctState)
		e.mask(host32(uint32(r.CTState)))
		e.compare(unequal, zeros(4))
	}
	if r.Direction != AnyDirection {
		e.ct(ctDirection)
		e.compare(equal, []byte{uint8(r.Direction - Original)})
	}
	if r.Limit != (Limit{}) {
		e.limit(r.Limit)
	}
}

// families tells what the rule's parts ask the packet to be.
func (r Rule) families() (four, six bool) {
	for _, a := range []netip.Addr{r.Src.Addr(), r.Dst.Addr(), r.To.Addr()} {
		four = four || a.Is4()
		six = six || a.Is6()
	}
	return four || r.Verdict.ipv4(), six
}

func (e exprs) iface(key uint32, name string) {
	if name != "" {
		e.meta(key)
		e.compare(equal, append([]byte(name), zeros(maxIface+1-len(name))...))
	}
}

func (e exprs) addr(p netip.Prefix, offset4, offset6 uint32) {
	if !p.IsValid() {
		return
	}
	offset := offset6
	if p.Addr().Is4() {
		offset = offset4
	}
	addr := p.Addr().AsSlice()
	e.payload(networkHeader, offset, uint32(len(addr)))
	if mask := net.CIDRMask(p.Bits(), p.Addr().BitLen()); !bytes.Equal(mask, net.CIDRMask(len(addr)*8, len(addr)*8)) {
		e.mask(mask)
	}
	e.compare(equal, addr)
}

// port compares a port, at the same offsets in all protocols that have ports.
func (e exprs) port(offset uint32, port uint16) {
	if port != 0 {
		e.payload(transportHeader, offset, 2)
		e.compare(equal, big16(port))
	}
}

// flags compares byte 13 of struct tcphdr.
func (e exprs) flags(f TCPFlags) {
	if f.Mask != 0 {
		e.payload(transportHeader, 13, 1)
		e.mask([]byte{f.Mask})
		e.compare(equal, []byte{f.Value})
	}
}
