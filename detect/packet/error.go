package packet

import "strconv"

// Error says why not even the addresses of a packet could be read. It is
// shared between callers and must not be modified.
type Error struct {
	What   string // what is wrong, such as "IPv4 header cut short"
	Offset int    // where, in bytes from the start of the slice
}

func (e *Error) Error() string {
	return "packet: " + e.What + " at offset " + strconv.Itoa(e.Offset)
}

// The errors there can be, made once so that refusing a packet costs no
// allocation.
var (
	errEmpty   = Error{What: "no IP header"}
	errVersion = Error{What: "IP version neither 4 nor 6"}
	errCutIPv4 = cuts("IPv4 header cut short", ipv4HeaderLen)
	errCutIPv6 = cuts("IPv6 header cut short", ipv6HeaderLen)
)

// cuts holds the error for a header that ends at each offset before size.
func cuts(what string, size int) []Error {
	errs := make([]Error, size)
	for i := range errs {
		errs[i] = Error{What: what, Offset: i}
	}
	return errs
}
