package nfnl

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Flags of a request (linux/netlink.h).
const (
	Request  = 0x1   // NLM_F_REQUEST
	Multi    = 0x2   // NLM_F_MULTI
	Ack      = 0x4   // NLM_F_ACK
	DumpAll  = 0x300 // NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
	Replace  = 0x100 // NLM_F_REPLACE
	Exclude  = 0x200 // NLM_F_EXCL
	Create   = 0x400 // NLM_F_CREATE
	Append   = 0x800 // NLM_F_APPEND
	filtered = 0x20  // NLM_F_DUMP_FILTERED
	intr     = 0x10  // NLM_F_DUMP_INTR
)

// Message is one netlink message. Data is the payload after struct nlmsghdr.
// A received Message borrows the receive buffer: it is good until the next one
// is asked for.
type Message struct {
	Type  uint16
	Flags uint16
	// Port is who caused what a multicast message tells: the port ID of the
	// netlink socket whose request did, or 0 for the kernel itself. Requests
	// have none.
	Port uint32
	Data []byte
	err  error
}

// Filtered reports NLM_F_DUMP_FILTERED: the kernel applied a dump filter.
func (m Message) Filtered() bool { return m.Flags&filtered != 0 }

// Builder writes the payload of a request: a fixed header and attributes.
// Values of U16, U32 and U64 are in network byte order, as netfilter wants;
// the Host variants in the host's, as sock_diag and route want. A value that
// does not fit its 16-bit length is kept as an error and told by Message.
type Builder struct {
	typ, flags uint16
	b          []byte
	err        error
}

// roomy is enough for most requests.
const roomy = 128

// NewBuilder starts a request of the given type; NLM_F_REQUEST is implied.
func NewBuilder(typ, flags uint16) *Builder {
	return &Builder{typ: typ, flags: flags | Request, b: make([]byte, 0, roomy)}
}

// NewNetfilter starts a netfilter request with its struct nfgenmsg. The
// version is NFNETLINK_V0 (0).
func NewNetfilter(subsystem, op uint8, flags uint16, family uint8) *Builder {
	b := NewBuilder(0, 0)
	b.Netfilter(subsystem, op, flags, family)
	return b
}

// Netfilter starts a netfilter request in b's memory: the Message made before is
// overwritten. The zero Builder may be started so.
func (b *Builder) Netfilter(subsystem, op uint8, flags uint16, family uint8) {
	b.typ, b.flags, b.err = uint16(subsystem)<<8|uint16(op), flags|Request, nil
	if b.b == nil {
		b.b = make([]byte, 0, roomy)
	}
	b.b = append(b.b[:0], family, 0, 0, 0)
}

// Raw appends bytes as they are, padded to 4: a fixed header.
func (b *Builder) Raw(p []byte) { b.pad(append(b.b, p...)) }

// Bytes appends an attribute.
func (b *Builder) Bytes(typ uint16, v []byte) {
	b.header(typ, len(v))
	b.pad(append(b.b, v...))
}

// String appends a NUL-terminated attribute.
func (b *Builder) String(typ uint16, s string) {
	b.header(typ, len(s)+1)
	b.pad(append(append(b.b, s...), 0))
}

// Flag appends an attribute without a value.
func (b *Builder) Flag(typ uint16) { b.header(typ, 0) }

// U8 appends one byte.
func (b *Builder) U8(typ uint16, v uint8) { b.Bytes(typ, []byte{v}) }

// U16 appends 16 bits in network byte order.
func (b *Builder) U16(typ uint16, v uint16) {
	b.header(typ, 2)
	b.pad(binary.BigEndian.AppendUint16(b.b, v))
}

// U32 appends 32 bits in network byte order.
func (b *Builder) U32(typ uint16, v uint32) {
	b.header(typ, 4)
	b.b = binary.BigEndian.AppendUint32(b.b, v)
}

// U64 appends 64 bits in network byte order.
func (b *Builder) U64(typ uint16, v uint64) {
	b.header(typ, 8)
	b.b = binary.BigEndian.AppendUint64(b.b, v)
}

// HostU32 appends 32 bits in the host's byte order.
func (b *Builder) HostU32(typ uint16, v uint32) {
	b.header(typ, 4)
	b.b = binary.NativeEndian.AppendUint32(b.b, v)
}

// Nested appends an attribute that holds what fn writes (NLA_F_NESTED set).
func (b *Builder) Nested(typ uint16, fn func()) {
	at := b.Begin(typ)
	fn()
	b.End(at)
}

// Begin is Nested for encoders of many small attributes: what is appended until
// End is in the attribute. It returns what End wants.
func (b *Builder) Begin(typ uint16) int {
	at := len(b.b)
	b.header(typ|attrNested, 0)
	return at
}

// End ends the attribute begun last.
func (b *Builder) End(at int) {
	n := len(b.b) - at
	if n > math.MaxUint16 {
		b.tooLong(binary.NativeEndian.Uint16(b.b[at+2:]), n)
	}
	binary.NativeEndian.PutUint16(b.b[at:], uint16(n))
}

// Len is the length of the payload so far.
func (b *Builder) Len() int { return len(b.b) }

// Message finishes the request.
func (b *Builder) Message() Message {
	return Message{Type: b.typ, Flags: b.flags, Data: b.b, err: b.err}
}

func (b *Builder) header(typ uint16, n int) {
	n += attrHeaderLen
	if n > math.MaxUint16 {
		b.tooLong(typ, n)
	}
	b.b = binary.NativeEndian.AppendUint16(b.b, uint16(n))
	b.b = binary.NativeEndian.AppendUint16(b.b, typ)
}

func (b *Builder) tooLong(typ uint16, n int) {
	if b.err == nil {
		b.err = fmt.Errorf("netlink attribute %d: %d bytes do not fit its 16-bit length", typ&attrTypeMask, n)
	}
}

func (b *Builder) pad(p []byte) {
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	b.b = p
}
