package nflog

import "fmt"

// CTInfo is how a packet relates to its conntrack entry (enum
// ip_conntrack_info).
type CTInfo uint32

// The values of CTInfo. Those with Reply travel in the direction of the
// answers.
const (
	Established      CTInfo = 0 // IP_CT_ESTABLISHED
	Related          CTInfo = 1 // IP_CT_RELATED
	New              CTInfo = 2 // IP_CT_NEW
	EstablishedReply CTInfo = 3 // IP_CT_ESTABLISHED_REPLY
	RelatedReply     CTInfo = 4 // IP_CT_RELATED_REPLY
	NewReply         CTInfo = 5 // IP_CT_NEW_REPLY, of old kernels
	Untracked        CTInfo = 7 // IP_CT_UNTRACKED, of which the kernel logs no entry
)

// String returns the name of the constant in lower case, such as
// "established reply".
func (c CTInfo) String() string {
	switch c {
	case Established:
		return "established"
	case Related:
		return "related"
	case New:
		return "new"
	case EstablishedReply:
		return "established reply"
	case RelatedReply:
		return "related reply"
	case NewReply:
		return "new reply"
	case Untracked:
		return "untracked"
	}
	return fmt.Sprintf("ctinfo %d", uint32(c))
}

// Reply reports whether the packet travels in the direction of the answers.
func (c CTInfo) Reply() bool { return c >= EstablishedReply && c <= NewReply }
