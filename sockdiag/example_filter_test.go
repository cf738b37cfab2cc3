package sockdiag_test

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// A filter is read as ss reads it; the kernel checks what it can.
func ExampleParseFilter() {
	f, err := sockdiag.ParseFilter("state established dport = :443 and src 10/8 and uid = 1000")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f)
	plan, err := sockdiag.Query{Family: sockdiag.IPv4, Filter: f}.Explain()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan)
	// Output:
	// state established dport = :443 and src 10.0.0.0/8 and uid = 1000
	// tcp IPv4: state established, remote port 443, 16 bytes of bytecode
	//      0  S_COND 10.0.0.0/8, else skip
	// left to Match: uid = 1000 (the kernel has no operation for it)
}

// The error says where the text is wrong and what could stand there.
func ExampleFilterError() {
	_, err := sockdiag.ParseFilter("dport = :443 and dst 10.0.0.0/33")
	var wrong *sockdiag.FilterError
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Column, wrong.Token, wrong.Problem, wrong.Accepted)
	}
	// Output:
	// 22 10.0.0.0/33 no length of a prefix 0 to 32
}

// The same filters are built in Go, and checked without a kernel.
func ExampleAnd() {
	f := sockdiag.And(
		sockdiag.Remote(netip.MustParsePrefix("192.0.2.0/24")),
		sockdiag.Not(sockdiag.LocalPort(sockdiag.Less, 1024)),
	)
	s := sockdiag.Socket{
		Family: sockdiag.IPv4,
		Local:  netip.MustParseAddrPort("198.51.100.1:40000"),
		Remote: netip.MustParseAddrPort("192.0.2.7:443"),
	}
	fmt.Println(f, f.Match(&s))
	// Output:
	// dst 192.0.2.0/24 and not sport < :1024 true
}
