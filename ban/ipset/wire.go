package ipset

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Numbers of linux/netfilter/ipset/ip_set.h and linux/netfilter/nfnetlink.h.
const (
	subsystem = 6 // NFNL_SUBSYS_IPSET
	protocol  = 6 // IPSET_PROTOCOL_MIN, which every kernel since 2.6.39 takes

	cmdCreate  = 2  // IPSET_CMD_CREATE
	cmdDestroy = 3  // IPSET_CMD_DESTROY
	cmdList    = 7  // IPSET_CMD_LIST
	cmdAdd     = 9  // IPSET_CMD_ADD
	cmdDel     = 10 // IPSET_CMD_DEL
	cmdType    = 13 // IPSET_CMD_TYPE

	// IPSET_ATTR_…, of commands
	attrProtocol = 1
	attrSetName  = 2
	attrTypeName = 3
	attrRevision = 4
	attrFamily   = 5
	attrFlags    = 6
	attrData     = 7
	attrADT      = 8
	attrLineNo   = 9

	// IPSET_ATTR_…, of sets and entries
	attrIP        = 1
	attrCIDR      = 3
	attrTimeout   = 6
	attrCADTFlags = 8

	// IPSET_ATTR_…, of sets
	attrHashSize   = 18
	attrMaxElem    = 19
	attrNetmask    = 20
	attrReferences = 25

	// IPSET_ATTR_…, of entries
	attrBytes   = 24
	attrPackets = 25
	attrComment = 26

	attrIPv4 = 1 // IPSET_ATTR_IPADDR_IPV4
	attrIPv6 = 2 // IPSET_ATTR_IPADDR_IPV6

	netOrder = 0x4000 // NLA_F_NET_BYTEORDER, without which ipset takes no number

	listHeader   = 1 << 2 // IPSET_FLAG_LIST_HEADER
	noMatch      = 1 << 2 // IPSET_FLAG_NOMATCH: an exception from wider prefixes
	withCounters = 1 << 3 // IPSET_FLAG_WITH_COUNTERS
	withComment  = 1 << 4 // IPSET_FLAG_WITH_COMMENT

	inet  = 2  // NFPROTO_IPV4
	inet6 = 10 // NFPROTO_IPV6
)

func family(f uint8) string {
	switch f {
	case inet:
		return "inet"
	case inet6:
		return "inet6"
	}
	return "unspecified"
}

// begin starts a request about a set.
func (s *set) begin(b *nfnl.Builder, cmd uint8, flags uint16) {
	b.Netfilter(subsystem, cmd, flags, s.proto())
	b.U8(attrProtocol, protocol)
	b.String(attrSetName, s.name)
}

func (s *set) proto() uint8 {
	if s.ipv6 {
		return inet6
	}
	return inet
}

// create asks for the set as ipset create does.
func (s *set) create(c *Config, revision uint8, timeout uint32) nfnl.Message {
	var b nfnl.Builder
	s.begin(&b, cmdCreate, nfnl.Create)
	b.String(attrTypeName, s.typ)
	b.U8(attrRevision, revision)
	b.U8(attrFamily, s.proto())
	b.Nested(attrData, func() {
		b.U32(attrHashSize|netOrder, c.HashSize)
		b.U32(attrMaxElem|netOrder, c.MaxElem)
		b.U32(attrTimeout|netOrder, timeout)
		b.U32(attrCADTFlags|netOrder, c.flags(s, revision))
		if s.typ == hashIP && s.ipv6 && s.bits != 128 {
			b.U8(attrNetmask, uint8(s.bits))
		}
	})
	return b.Message()
}

// commented is the revision of the type of a set from which entries have
// comments, Linux 3.13. One before it they have counters.
var commented = map[string]uint8{hashIP: 2, hashNet: 4}

func (c *Config) flags(s *set, revision uint8) (flags uint32) {
	if revision >= commented[s.typ] {
		flags |= withComment
	}
	if c.Counters {
		flags |= withCounters
	}
	return flags
}

// seconds is the timeout of a ban, rounded up; 0 is for ever. One that ends while
// it is made lasts a second. The millisecond is what an Until is rounded up by:
// 270 s stay 270 s.
func seconds(now time.Time, until ban.Until) uint32 {
	left, timed := until.Left(now)
	if !timed {
		return 0
	}
	return uint32(max((left-time.Millisecond+time.Second-1)/time.Second, 1))
}

// size is not less than the bytes that put appends: headers, an IPv6 address, a
// prefix length, a timeout, and the comment with its NUL and padding.
func size(e *ban.Entry) int {
	if e.Reason == "" {
		return 44
	}
	return 44 + 8 + min(len(e.Reason), maxComment)
}

// many is the request that adds or deletes, by cmd, the entries of these indices.
// The kernel does so one by one, and stops at the first that it refuses.
func (s *set) many(b *nfnl.Builder, cmd uint8, now time.Time, entries []ban.Entry, at []int) nfnl.Message {
	s.begin(b, cmd, 0)
	b.U32(attrLineNo|netOrder, 0) // it must be there; entries have none
	b.Nested(attrADT, func() {
		for _, i := range at {
			s.put(b, cmd, now, &entries[i])
		}
	})
	return b.Message()
}

// one is the request about a single entry. With flags nfnl.Exclude, deleting one
// that is not there is an error.
func (s *set) one(cmd uint8, now time.Time, e *ban.Entry, flags uint16) nfnl.Message {
	var b nfnl.Builder
	s.begin(&b, cmd, flags)
	s.put(&b, cmd, now, e)
	return b.Message()
}

func (s *set) put(b *nfnl.Builder, cmd uint8, now time.Time, e *ban.Entry) {
	b.Nested(attrData, func() {
		b.Nested(attrIP, func() {
			if a := e.Prefix.Addr(); s.ipv6 {
				v := a.As16()
				b.Bytes(attrIPv6|netOrder, v[:])
			} else {
				v := a.As4()
				b.Bytes(attrIPv4|netOrder, v[:])
			}
		})
		if s.typ == hashNet {
			b.U8(attrCIDR, uint8(e.Prefix.Bits()))
		}
		if cmd == cmdDel {
			return
		}
		b.U32(attrTimeout|netOrder, seconds(now, e.Until))
		if !s.comments || e.Reason == "" {
			return
		}
		if text := comment(e.Reason); text != "" {
			b.String(attrComment, text)
		}
	})
}

// comment is a reason as ipset(8) can print it and read it again.
func comment(reason string) string {
	if len(reason) > maxComment {
		reason = reason[:maxComment]
	}
	reason = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r == 0x7f:
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, ""))
	return strings.TrimSpace(reason)
}

// header is what the kernel says of a set.
type header struct {
	typ        string
	family     uint8
	ipv6       bool
	timeouts   bool
	netmask    int
	flags      uint32
	maxElem    uint32
	references uint32
}

// decodeHeader reads the first message about a set; others have no type.
func decodeHeader(b []byte) (h header, err error) {
	if b, err = skipGeneric(b); err != nil {
		return header{}, err
	}
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case attrTypeName:
			h.typ = a.String()
		case attrFamily:
			h.family = a.U8()
			h.ipv6 = h.family == inet6
		case attrData:
			if err := h.decodeData(a.Value); err != nil {
				return header{}, err
			}
		}
	}
	if err := a.Err(); err != nil {
		return header{}, err
	}
	return h, nil
}

func (h *header) decodeData(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case attrTimeout:
			h.timeouts = true
		case attrNetmask:
			h.netmask = int(a.U8())
		case attrCADTFlags:
			h.flags = a.U32()
		case attrMaxElem:
			h.maxElem = a.U32()
		case attrReferences:
			h.references = a.U32()
		}
	}
	return a.Err()
}

// skipGeneric takes off struct nfgenmsg.
func skipGeneric(b []byte) ([]byte, error) {
	const size = 4
	if len(b) < size {
		return nil, fmt.Errorf("%w: %d bytes", nfnl.ErrTruncated, len(b))
	}
	return b[size:], nil
}

// element is an entry of a set.
type element struct {
	prefix         netip.Prefix
	timeout        uint32 // seconds left; 0 is for ever
	flags          uint32
	comment        string
	packets, bytes uint64
	counted        bool
}

// elements walks the entries in a message about the set, until yield is false.
func (s *set) elements(b []byte, yield func(element) bool) (more bool, err error) {
	if b, err = skipGeneric(b); err != nil {
		return false, err
	}
	a := nfnl.Walk(b)
	for a.Next() {
		if a.Type != attrADT {
			continue
		}
		d := nfnl.Walk(a.Value)
		for d.Next() {
			if d.Type != attrData {
				continue
			}
			e, err := s.decodeElement(d.Value)
			if err != nil || !yield(e) {
				return false, err
			}
		}
		if err := d.Err(); err != nil {
			return false, err
		}
	}
	return true, a.Err()
}

func (s *set) decodeElement(b []byte) (e element, err error) {
	var addr netip.Addr
	bits := s.bits
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case attrIP:
			addr = decodeAddr(a.Value)
		case attrCIDR:
			bits = int(a.U8())
		case attrTimeout:
			e.timeout = a.U32()
		case attrCADTFlags:
			e.flags = a.U32()
		case attrComment:
			e.comment = strings.ToValidUTF8(a.String(), "?")
		case attrPackets:
			e.packets, e.counted = a.U64(), true
		case attrBytes:
			e.bytes = a.U64()
		}
	}
	e.prefix = netip.PrefixFrom(addr, bits)
	switch {
	case a.Err() != nil:
		return element{}, a.Err()
	case !e.prefix.IsValid() || addr.Is6() != s.ipv6:
		return element{}, fmt.Errorf("%w: address %v/%d in set %s", nfnl.ErrTruncated, addr, bits, s.name)
	}
	return e, nil
}

// decodeAddr returns the zero Addr if there is none.
func decodeAddr(b []byte) (addr netip.Addr) {
	for a := nfnl.Walk(b); a.Next(); {
		if a.Type == attrIPv4 && len(a.Value) == 4 || a.Type == attrIPv6 && len(a.Value) == 16 {
			addr, _ = netip.AddrFromSlice(a.Value)
		}
	}
	return addr
}
