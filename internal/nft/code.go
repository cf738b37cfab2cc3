package nft

import "fmt"

// Code is a verdict as the kernel writes it (NF_* of linux/netfilter.h, enum
// nft_verdicts): what a rule of any program decided.
type Code int32

// The verdict codes. A rule that rejects has CodeDrop: the answer is a packet of
// its own.
const (
	CodeDrop     Code = 0  // NF_DROP
	CodeAccept   Code = 1  // NF_ACCEPT
	CodeStolen   Code = 2  // NF_STOLEN: taken over by somebody, such as synproxy
	CodeQueue    Code = 3  // NF_QUEUE: to a program
	CodeRepeat   Code = 4  // NF_REPEAT
	CodeContinue Code = -1 // NFT_CONTINUE: the next rule
	CodeBreak    Code = -2 // NFT_BREAK: as CodeContinue, the rule did not match
	CodeJump     Code = -3 // NFT_JUMP
	CodeGoto     Code = -4 // NFT_GOTO
	CodeReturn   Code = -5 // NFT_RETURN: to the chain before
)

var (
	hookCodes = [...]string{"drop", "accept", "stolen", "queue", "repeat"}
	ruleCodes = [...]string{"continue", "break", "jump", "goto", "return"}
)

// String is nft(8)'s word.
func (c Code) String() string {
	switch {
	case c >= 0 && int(c) < len(hookCodes):
		return hookCodes[c]
	case c < 0 && int(-c) <= len(ruleCodes):
		return ruleCodes[-c-1]
	}
	return fmt.Sprintf("verdict %d", int32(c))
}

// codeOf takes what the kernel keeps in the upper half, such as the number of
// a queue, off a verdict of a hook (NF_VERDICT_MASK).
func codeOf(v uint32) Code {
	if c := Code(v); c < 0 && int(-c) <= len(ruleCodes) {
		return c
	}
	return Code(v & 0xff)
}
