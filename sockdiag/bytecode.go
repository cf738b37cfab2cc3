package sockdiag

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// The operations of the kernel's bytecode (INET_DIAG_BC_*). Each is
//
//	struct inet_diag_bc_op { u8 code, yes; u16 no; }
//
// with its argument behind it: yes and no are how many bytes to go on by. To
// arrive at the end of the code selects a socket, to go 4 bytes beyond does
// not. Every operation is entered from the one before it, since the kernel
// lets jumps land only where steps of yes lead (valid_cc).
//
// S_EQ and D_EQ are not used: COND compares a port as well, in every kernel.
const (
	opJump      = 1  // INET_DIAG_BC_JMP
	opLocalGE   = 2  // INET_DIAG_BC_S_GE
	opLocalLE   = 3  // INET_DIAG_BC_S_LE
	opRemoteGE  = 4  // INET_DIAG_BC_D_GE
	opRemoteLE  = 5  // INET_DIAG_BC_D_LE
	opAuto      = 6  // INET_DIAG_BC_AUTO
	opLocal     = 7  // INET_DIAG_BC_S_COND
	opRemote    = 8  // INET_DIAG_BC_D_COND
	opInterface = 9  // INET_DIAG_BC_DEV_COND: Linux 4.8
	opMark      = 10 // INET_DIAG_BC_MARK_COND: Linux 4.9, CAP_NET_ADMIN
	opCgroup    = 13 // INET_DIAG_BC_CGROUP_COND: Linux 5.8
)

const (
	opLen = 4 // struct inet_diag_bc_op
	// maxBytecode is what "no" can jump over, and less than an attribute
	// can hold.
	maxBytecode = 1<<16 - 64
)

// verdict is what is known of a condition before the kernel is asked.
type verdict uint8

const (
	maybe verdict = iota
	always
	never
)

func (v verdict) not() verdict {
	switch v {
	case always:
		return never
	case never:
		return always
	}
	return maybe
}

// block is bytecode that decides a condition, or a verdict without any. Its
// end holds, 4 bytes beyond fails.
type block struct {
	verdict verdict
	code    []byte
}

func known(holds bool) block {
	if holds {
		return block{verdict: always}
	}
	return block{verdict: never}
}

// op makes a block of one operation.
func op(code uint8, arg []byte) block {
	n := opLen + len(arg)
	b := append(make([]byte, 0, n), code, uint8(n))
	b = binary.NativeEndian.AppendUint16(b, uint16(n+opLen))
	return block{code: append(b, arg...)}
}

func jump(by int) []byte {
	return binary.NativeEndian.AppendUint16([]byte{opJump, opLen}, uint16(by))
}

// not holds where b fails.
func (b block) not() block {
	if b.verdict != maybe {
		return block{verdict: b.verdict.not()}
	}
	return block{code: append(b.code, jump(2*opLen)...)}
}

// all holds where every block holds. Blocks that do not fit are left out: the
// kernel selects more then.
func all(blocks []block) (b block, fits bool) {
	var codes [][]byte
	size := 0
	fits = true
	for _, b := range blocks {
		switch {
		case b.verdict == never:
			return b, true
		case b.verdict == always:
		case size+len(b.code) > maxBytecode:
			fits = false
		default:
			codes = append(codes, b.code)
			size += len(b.code)
		}
	}
	if size == 0 {
		return known(true), fits
	}
	code := make([]byte, 0, size)
	for _, c := range codes {
		relocate(c, size-len(code)-len(c))
		code = append(code, c...)
	}
	return block{code: code}, fits
}

// relocate makes code that fails jump over n bytes more.
func relocate(code []byte, n int) {
	for at := 0; at < len(code); at += int(code[at+1]) {
		no := binary.NativeEndian.Uint16(code[at+2:])
		if at+int(no) == len(code)+opLen {
			binary.NativeEndian.PutUint16(code[at+2:], no+uint16(n))
		}
	}
}

// some holds where one of the blocks holds; when they do not fit, always.
func some(blocks []block) (b block, fits bool) {
	var codes [][]byte
	size := -opLen
	for _, b := range blocks {
		switch b.verdict {
		case always:
			return b, true
		case maybe:
			codes = append(codes, b.code)
			size += len(b.code) + opLen
		}
	}
	if len(codes) == 0 {
		return known(false), true
	}
	if size > maxBytecode {
		return known(true), false
	}
	code := make([]byte, 0, size)
	for i, c := range codes {
		code = append(code, c...)
		if i < len(codes)-1 {
			code = append(code, jump(size-len(code))...)
		}
	}
	return block{code: code}, true
}

// portBlock compares a port.
func portBlock(remote bool, c Comparison, port uint16) block {
	ge, le := uint8(opLocalGE), uint8(opLocalLE)
	if remote {
		ge, le = opRemoteGE, opRemoteLE
	}
	switch c {
	case Equal:
		return hostBlock(remote, netip.Prefix{}, int32(port))
	case NotEqual:
		return hostBlock(remote, netip.Prefix{}, int32(port)).not()
	case Less:
		if port == 0 {
			return known(false)
		}
		return portOp(le, port-1)
	case LessOrEqual:
		return portOp(le, port)
	case Greater:
		if port == math.MaxUint16 {
			return known(false)
		}
		return portOp(ge, port+1)
	}
	return portOp(ge, port)
}

// portOp puts the port in the "no" of a second struct inet_diag_bc_op.
func portOp(code uint8, port uint16) block {
	return op(code, binary.NativeEndian.AppendUint16(make([]byte, 2, opLen), port))
}

// anyPort is the port of struct inet_diag_hostcond that is not compared.
const anyPort = -1

// hostBlock compares an address, a port, or both (struct inet_diag_hostcond: u8
// family, prefix_len; int port; be32 addr[]). Without a prefix the family is
// AF_UNSPEC. One of IPv4 holds for mapped addresses too.
func hostBlock(remote bool, p netip.Prefix, port int32) block {
	code := uint8(opLocal)
	if remote {
		code = opRemote
	}
	arg := make([]byte, 8, 24)
	binary.NativeEndian.PutUint32(arg[4:], uint32(port))
	if p.IsValid() {
		arg[0], arg[1] = uint8(IPv4), uint8(p.Bits())
		if !p.Addr().Is4() {
			arg[0] = uint8(IPv6)
		}
		arg = append(arg, p.Addr().AsSlice()...)
	}
	return op(code, arg)
}

// words writes an argument of 32-bit numbers.
func words(numbers ...uint32) []byte {
	var b []byte
	for _, n := range numbers {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}
