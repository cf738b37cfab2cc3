package packet

// TCPFlags are the flag bits of a TCP header: byte 13, RFC 9293 section 3.1
// and RFC 3168 section 6.1 (ECE, CWR). Compare whole values, or mask ECE and
// CWR first: a SYN that asks for ECN is SYN|ECE|CWR.
type TCPFlags uint8

// The bits, as TCPHDR_FIN to TCPHDR_CWR in Linux net/tcp.h.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

var flagNames = [8]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

// Has reports whether all of the given flags are set.
func (f TCPFlags) Has(flags TCPFlags) bool { return f&flags == flags }

// String joins the names of the set flags, lowest bit first: "SYN|ACK". It is
// "none" for 0.
func (f TCPFlags) String() string { return string(appendBits(nil, uint8(f), &flagNames)) }

// appendBits appends the names of the bits set in v, or "none".
func appendBits(b []byte, v uint8, names *[8]string) []byte {
	if v == 0 {
		return append(b, "none"...)
	}
	sep := ""
	for i, name := range names {
		if v&(1<<i) != 0 {
			b = append(append(b, sep...), name...)
			sep = "|"
		}
	}
	return b
}
