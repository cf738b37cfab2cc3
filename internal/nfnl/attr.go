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

// Attrs walks a run of netlink attributes (struct nlattr) in place:
//
//	for a := nfnl.Walk(b); a.Next(); {
//		switch a.Type {
//		case ctaMark:
//			mark = a.U32()
//		}
//	}
//
// Value borrows the walked bytes. Unknown types are for the caller to skip. A
// header or value that does not fit ends the walk and is told by Err.
type Attrs struct {
	// Type is the attribute's type without its flag bits.
	Type uint16
	// Value is the attribute's payload, borrowed.
	Value []byte

	rest []byte
	err  *AttrError
}

// AttrError says which attribute could not be read. Errors of nested
// attributes name the inner type.
type AttrError struct {
	Type uint16 // attribute type
	Have int    // bytes there
	Want int    // bytes needed
}

func (e *AttrError) Error() string {
	return fmt.Sprintf("netlink attribute %d: %d bytes, want %d", e.Type, e.Have, e.Want)
}

// Walk starts a walk over b.
func Walk(b []byte) Attrs { return Attrs{rest: b} }

// Next goes to the next attribute and says whether there is one.
func (a *Attrs) Next() bool {
	if len(a.rest) < attrHeaderLen || a.err != nil {
		if len(a.rest) > 0 && a.err == nil {
			a.fail(attrHeaderLen, len(a.rest))
		}
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	a.Type = binary.NativeEndian.Uint16(a.rest[2:]) & attrTypeMask
	if n < attrHeaderLen || n > len(a.rest) {
		a.fail(n, len(a.rest))
		return false
	}
	a.Value = a.rest[attrHeaderLen:n]
	a.rest = a.rest[min(align(n), len(a.rest)):]
	return true
}

// Err returns the first malformed attribute met, or nil.
func (a *Attrs) Err() error {
	if a.err == nil {
		return nil
	}
	return a.err
}

// U8 reads the value as one byte.
func (a *Attrs) U8() uint8 {
	if len(a.Value) < 1 {
		a.fail(1, len(a.Value))
		return 0
	}
	return a.Value[0]
}

// U16 reads the value as 16 bits in network byte order.
func (a *Attrs) U16() uint16 {
	if len(a.Value) < 2 {
		a.fail(2, len(a.Value))
		return 0
	}
	return binary.BigEndian.Uint16(a.Value)
}

// U32 reads the value as 32 bits in network byte order.
func (a *Attrs) U32() uint32 {
	if len(a.Value) < 4 {
		a.fail(4, len(a.Value))
		return 0
	}
	return binary.BigEndian.Uint32(a.Value)
}

// U64 reads the value as 64 bits in network byte order.
func (a *Attrs) U64() uint64 {
	if len(a.Value) < 8 {
		a.fail(8, len(a.Value))
		return 0
	}
	return binary.BigEndian.Uint64(a.Value)
}

// HostU32 reads the value as 32 bits in the host's byte order (sock_diag and
// route attributes).
func (a *Attrs) HostU32() uint32 {
	if len(a.Value) < 4 {
		a.fail(4, len(a.Value))
		return 0
	}
	return binary.NativeEndian.Uint32(a.Value)
}

// HostU64 reads the value as 64 bits in the host's byte order.
func (a *Attrs) HostU64() uint64 {
	if len(a.Value) < 8 {
		a.fail(8, len(a.Value))
		return 0
	}
	return binary.NativeEndian.Uint64(a.Value)
}

// String reads the value as a string, ending at the first NUL.
func (a *Attrs) String() string { return cString(a.Value) }

func (a *Attrs) fail(want, have int) {
	if a.err == nil {
		a.err = &AttrError{Type: a.Type, Have: have, Want: want}
	}
}

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
