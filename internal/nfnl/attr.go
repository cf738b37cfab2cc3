package nfnl

import (
	"encoding/binary"
	"fmt"
)

const (
	attrHeaderLen = 4
	// attrTypeMask is NLA_TYPE_MASK: the type without NLA_F_NESTED and
	// NLA_F_NET_BYTEORDER.
	attrTypeMask = 0x3fff
	attrNested   = 0x8000 // NLA_F_NESTED
)

// Attr is one netlink attribute (struct nlattr).
type Attr struct {
	// Type is the attribute's type without its flag bits; Malformed when
	// Value is no attribute.
	Type uint16
	// Value is the attribute's payload, borrowed.
	Value []byte
}

// Malformed is no attribute's type: they have 14 bits.
const Malformed = 0xffff

// Cut takes the first attribute off b. A malformed one is the last, and has
// what is left of b for its value.
//
// It is for decoders of many small attributes: it keeps in registers what a
// walk with Attrs keeps in memory, and takes half the time.
//
//	var a nfnl.Attr
//	var bad nfnl.Fault
//	for len(b) > 0 {
//		a, b = nfnl.Cut(b)
//		switch a.Type {
//		case ctaMark:
//			mark = a.U32(&bad)
//		}
//	}
//	return bad.After(a)
func Cut(b []byte) (a Attr, rest []byte) {
	if len(b) >= attrHeaderLen {
		if n := int(binary.NativeEndian.Uint16(b)); attrHeaderLen <= n && n <= len(b) {
			return Attr{binary.NativeEndian.Uint16(b[2:]) & attrTypeMask, b[attrHeaderLen:n]}, b[min(align(n), len(b)):]
		}
	}
	return Attr{Malformed, b}, nil
}

// Fault is the first thing wrong in a run of attributes.
type Fault struct{ err *AttrError }

// After ends a run after its last attribute and returns the first fault.
func (f *Fault) After(last Attr) error {
	if last.Type == Malformed {
		f.malformed(last.Value)
	}
	if f.err == nil {
		return nil
	}
	return f.err
}

// malformed notes what is wrong with the attribute that b begins with.
func (f *Fault) malformed(b []byte) {
	if f.err != nil {
		return
	}
	f.err = &AttrError{Have: len(b), Want: attrHeaderLen}
	if len(b) >= attrHeaderLen {
		f.err.Want = int(binary.NativeEndian.Uint16(b))
		f.err.Type = binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
	}
}

func (f *Fault) short(a Attr, want int) {
	if f.err == nil {
		f.err = &AttrError{Type: a.Type, Have: len(a.Value), Want: want}
	}
}

// AttrError says which attribute could not be read. Errors of nested
// attributes name the inner type.
type AttrError struct {
	Type uint16 // attribute type; 0 when its header is cut short
	Have int    // bytes there
	Want int    // bytes needed
}

func (e *AttrError) Error() string {
	return fmt.Sprintf("netlink attribute %d: %d bytes, want %d", e.Type, e.Have, e.Want)
}

// U8 reads the value as one byte.
func (a Attr) U8(f *Fault) uint8 {
	if len(a.Value) < 1 {
		f.short(a, 1)
		return 0
	}
	return a.Value[0]
}

// U16 reads the value as 16 bits in network byte order.
func (a Attr) U16(f *Fault) uint16 {
	if len(a.Value) < 2 {
		f.short(a, 2)
		return 0
	}
	return binary.BigEndian.Uint16(a.Value)
}

// U32 reads the value as 32 bits in network byte order.
func (a Attr) U32(f *Fault) uint32 {
	if len(a.Value) < 4 {
		f.short(a, 4)
		return 0
	}
	return binary.BigEndian.Uint32(a.Value)
}

// U64 reads the value as 64 bits in network byte order.
func (a Attr) U64(f *Fault) uint64 {
	if len(a.Value) < 8 {
		f.short(a, 8)
		return 0
	}
	return binary.BigEndian.Uint64(a.Value)
}

// HostU16 reads the value as 16 bits in the host's byte order.
func (a Attr) HostU16(f *Fault) uint16 {
	if len(a.Value) < 2 {
		f.short(a, 2)
		return 0
	}
	return binary.NativeEndian.Uint16(a.Value)
}

// HostU32 reads the value as 32 bits in the host's byte order (sock_diag and
// route attributes).
func (a Attr) HostU32(f *Fault) uint32 {
	if len(a.Value) < 4 {
		f.short(a, 4)
		return 0
	}
	return binary.NativeEndian.Uint32(a.Value)
}

// HostU64 reads the value as 64 bits in the host's byte order.
func (a Attr) HostU64(f *Fault) uint64 {
	if len(a.Value) < 8 {
		f.short(a, 8)
		return 0
	}
	return binary.NativeEndian.Uint64(a.Value)
}

// Attrs walks a run of attributes in place, and keeps the first fault:
//
//	for a := nfnl.Walk(b); a.Next(); {
//		switch a.Type {
//		case nlaMark:
//			mark = a.U32()
//		}
//	}
//
// Unknown types are for the caller to skip. A header or value that does not fit
// ends the walk and is told by Err.
type Attrs struct {
	Attr
	rest  []byte
	fault Fault
}

// Walk starts a walk over b.
func Walk(b []byte) Attrs { return Attrs{rest: b} }

// Next goes to the next attribute and says whether there is one.
func (a *Attrs) Next() bool {
	if len(a.rest) == 0 || a.fault.err != nil {
		return false
	}
	next, rest := Cut(a.rest)
	if next.Type == Malformed {
		a.fault.malformed(a.rest)
		return false
	}
	a.Attr, a.rest = next, rest
	return true
}

// Err returns the first fault, or nil.
func (a *Attrs) Err() error { return a.fault.After(a.Attr) }

// U8 reads the value as one byte.
func (a *Attrs) U8() uint8 { return a.Attr.U8(&a.fault) }

// U16 reads the value as 16 bits in network byte order.
func (a *Attrs) U16() uint16 { return a.Attr.U16(&a.fault) }

// U32 reads the value as 32 bits in network byte order.
func (a *Attrs) U32() uint32 { return a.Attr.U32(&a.fault) }

// U64 reads the value as 64 bits in network byte order.
func (a *Attrs) U64() uint64 { return a.Attr.U64(&a.fault) }

// HostU16 reads the value as 16 bits in the host's byte order.
func (a *Attrs) HostU16() uint16 { return a.Attr.HostU16(&a.fault) }

// HostU32 reads the value as 32 bits in the host's byte order.
func (a *Attrs) HostU32() uint32 { return a.Attr.HostU32(&a.fault) }

// HostU64 reads the value as 64 bits in the host's byte order.
func (a *Attrs) HostU64() uint64 { return a.Attr.HostU64(&a.fault) }

// String reads the value as a string, ending at the first NUL.
func (a *Attrs) String() string { return cString(a.Value) }

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// align rounds up to NLMSG_ALIGNTO, which is also NLA_ALIGNTO: 4.
func align(n int) int { return (n + 3) &^ 3 }
