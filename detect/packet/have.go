package packet

// Have says which fields of a [Header] are present. The addresses, TTL and
// Length always are.
type Have uint8

const (
	// HaveProto: Proto is the transport protocol. It is missing only when an
	// IPv6 packet ends within its extension headers, or when a fragment other
	// than the first would continue them. Until it is set, Fragment is not
	// known to be false.
	HaveProto Have = 1 << iota
	// HavePorts: SrcPort and DstPort.
	HavePorts
	// HaveSeq: Seq; with HavePorts all that an RFC 792 quote shows of TCP.
	HaveSeq
	// HaveFlags: Ack, Window and Flags.
	HaveFlags
	// HaveICMP: ICMPType and ICMPCode.
	HaveICMP
	// HaveICMPID: ICMPID.
	HaveICMPID
)

var haveNames = [8]string{"proto", "ports", "seq", "flags", "icmp", "icmpid"}

// Has reports whether all of the given fields are present.
func (h Have) Has(fields Have) bool { return h&fields == fields }

// String lists the fields, such as "proto|ports|seq", or "none".
func (h Have) String() string { return string(appendBits(nil, uint8(h), &haveNames)) }
