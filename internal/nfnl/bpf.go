package nfnl

// Instruction is one instruction of a socket filter, a classic BPF program
// (struct sock_filter). The kernel runs it over each datagram, struct nlmsghdr
// first, and drops those for which it returns 0. Loads are big-endian.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8 // instructions to skip when a condition holds, and when not
	K      uint32
}

// maxProgram is BPF_MAXINSNS.
const maxProgram = 4096

// The instructions' codes (linux/bpf_common.h).
const (
	BPFLoad       = 0x00 // BPF_LD | BPF_W | BPF_IMM: A = K
	BPFLoadX      = 0x01 // BPF_LDX | BPF_W | BPF_IMM: X = K
	BPFByteAt     = 0x30 // BPF_LD | BPF_B | BPF_ABS: A = byte K
	BPFCall       = 0x20 // BPF_LD | BPF_W | BPF_ABS: with K one of Find and FindNested
	BPFByte       = 0x50 // BPF_LD | BPF_B | BPF_IND: A = byte X + K
	BPFHalf       = 0x48 // BPF_LD | BPF_H | BPF_IND: A = 16 bits at X + K
	BPFWord       = 0x40 // BPF_LD | BPF_W | BPF_IND: A = 32 bits at X + K
	BPFToX        = 0x07 // BPF_MISC | BPF_TAX: X = A
	BPFAnd        = 0x54 // BPF_ALU | BPF_AND | BPF_K: A &= K
	BPFEqual      = 0x15 // BPF_JMP | BPF_JEQ | BPF_K: A == K
	BPFReturn     = 0x06 // BPF_RET | BPF_K
	BPFReturnAll  = ^uint32(0)
	BPFReturnNone = 0
	BPFFind       = 0xfffff00c // SKF_AD_OFF + SKF_AD_NLATTR: A = where attribute X is, from A on; 0 if it is not
	BPFFindNested = 0xfffff010 // SKF_AD_OFF + SKF_AD_NLATTR_NEST: A = where attribute X is inside the one at A; 0 if it is not
)
