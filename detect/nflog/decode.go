package nflog

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	subsystem  = 4 // NFNL_SUBSYS_ULOG
	opPacket   = 0 // NFULNL_MSG_PACKET
	opConfig   = 1 // NFULNL_MSG_CONFIG
	typePacket = subsystem<<8 | opPacket

	nfgenLen = 4 // struct nfgenmsg
)

// The attributes of a packet (enum nfulnl_attr_type).
const (
	attrPacketHdr = 1  // NFULA_PACKET_HDR, struct nfulnl_msg_packet_hdr
	attrMark      = 2  // NFULA_MARK
	attrTimestamp = 3  // NFULA_TIMESTAMP, struct nfulnl_msg_packet_timestamp
	attrIn        = 4  // NFULA_IFINDEX_INDEV
	attrOut       = 5  // NFULA_IFINDEX_OUTDEV
	attrPhysIn    = 6  // NFULA_IFINDEX_PHYSINDEV
	attrPhysOut   = 7  // NFULA_IFINDEX_PHYSOUTDEV
	attrHwAddr    = 8  // NFULA_HWADDR, struct nfulnl_msg_packet_hw
	attrPayload   = 9  // NFULA_PAYLOAD
	attrPrefix    = 10 // NFULA_PREFIX
	attrUID       = 11 // NFULA_UID
	attrSeq       = 12 // NFULA_SEQ
	attrGlobalSeq = 13 // NFULA_SEQ_GLOBAL
	attrGID       = 14 // NFULA_GID
	attrHwType    = 15 // NFULA_HWTYPE
	attrHwHeader  = 16 // NFULA_HWHEADER
	attrConntrack = 18 // NFULA_CT
	attrCTInfo    = 19 // NFULA_CT_INFO
	attrVLAN      = 20 // NFULA_VLAN
	attrL2Header  = 21 // NFULA_L2HDR, of bridges
	attrVLANProto = 1  // NFULA_VLAN_PROTO
	attrVLANTCI   = 2  // NFULA_VLAN_TCI
)

// decode reads the payload of an NFULNL_MSG_PACKET. The Packet borrows b. ok
// tells whether it could be read, and numbered whether it has a Seq.
func decode(b []byte, names *prefixes) (p Packet, numbered, ok bool) {
	if len(b) < nfgenLen {
		return Packet{}, false, false
	}
	p.Family, p.Group = Family(b[0]), binary.BigEndian.Uint16(b[2:])
	var a nfnl.Attr
	var bad nfnl.Fault
	var uid, gid, bridged bool
	for b = b[nfgenLen:]; len(b) > 0; {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case attrPacketHdr:
			header := a.U32(&bad) // hw_protocol, hook, padding
			p.HwProtocol, p.Hook = uint16(header>>16), Hook(header>>8)
		case attrMark:
			p.Mark = a.U32(&bad)
		case attrTimestamp:
			p.Time = timestamp(a, &bad)
		case attrIn:
			p.In = a.U32(&bad)
		case attrOut:
			p.Out = a.U32(&bad)
		case attrPhysIn:
			p.PhysIn = a.U32(&bad)
		case attrPhysOut:
			p.PhysOut = a.U32(&bad)
		case attrHwAddr:
			p.HwAddr = hwAddr(a, &bad)
		case attrPayload:
			p.Payload = a.Value
		case attrPrefix:
			p.Prefix = names.name(a.Value)
		case attrUID:
			p.UID, uid = a.U32(&bad), true
		case attrSeq:
			p.Seq, numbered = a.U32(&bad), true
		case attrGlobalSeq:
			p.GlobalSeq = a.U32(&bad)
		case attrGID:
			p.GID, gid = a.U32(&bad), true
		case attrHwType:
			p.HwType = a.U16(&bad)
		case attrHwHeader:
			if !bridged {
				p.LinkHeader = a.Value
			}
		case attrL2Header:
			p.LinkHeader, bridged = a.Value, true
		case attrConntrack:
			p.Conntrack = a.Value
		case attrCTInfo:
			p.CTInfo, p.HasCTInfo = CTInfo(a.U32(&bad)), true
		case attrVLAN:
			p.VLAN, p.HasVLAN = vlan(a.Value)
		}
	}
	if p.HasUID = uid && gid; !p.HasUID {
		p.UID, p.GID = 0, 0
	}
	if bad.After(a) != nil {
		return Packet{}, false, false
	}
	return p, numbered, true
}

func timestamp(a nfnl.Attr, bad *nfnl.Fault) time.Time {
	sec := a.U64(bad)
	usec := nfnl.Attr{Type: a.Type, Value: a.Value[min(8, len(a.Value)):]}.U64(bad)
	return time.Unix(int64(sec), int64(usec)*1000)
}

// hwAddr is nil where the length of the address is not that of one.
func hwAddr(a nfnl.Attr, bad *nfnl.Fault) []byte {
	const at = 4 // hw_addrlen, padding
	n := int(a.U16(bad))
	if len(a.Value) < at+n {
		return nil
	}
	return a.Value[at : at+n]
}

func vlan(b []byte) (v VLAN, ok bool) {
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case attrVLANProto:
			v.Proto = a.U16(&bad)
		case attrVLANTCI:
			v.TCI = a.U16(&bad)
		}
	}
	if bad.After(a) != nil {
		return VLAN{}, false
	}
	return v, true
}

// prefixes keeps the strings of the prefixes seen last, so that a packet with
// one of them allocates nothing. The kernel's reasons have numbers in them, so
// there is no end of prefixes: those that meet in a place replace each other.
type prefixes struct {
	seed maphash.Seed
	kept [64]string
}

func newPrefixes() *prefixes { return &prefixes{seed: maphash.MakeSeed()} }

// name returns the string in b, without the NUL that ends it.
func (p *prefixes) name(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	place := &p.kept[maphash.Bytes(p.seed, b)%uint64(len(p.kept))]
	if *place != string(b) {
		*place = string(b)
	}
	return *place
}
