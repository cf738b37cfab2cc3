package conntrack_test

import (
	"fmt"

	"github.com/connsleuth/connsleuth/conntrack"
)

// A tool hands its command line's options on, as conntrack(8) takes them.
func ExampleParseFilter() {
	for _, expr := range []string{
		"-p tcp --dst 10.0.0.0/8 --dport 8000:8999 --state SYN_SENT,SYN_RECV -u UNREPLIED",
		"-p tcp --dport http",
	} {
		filter, err := conntrack.ParseFilter(expr)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(filter)
	}
	// Output:
	// -p tcp -d 10.0.0.0/8 --dport 8000:8999 --state SYN_SENT,SYN_RECV -u !SEEN_REPLY
	// conntrack: filter: column 16: "http": no port (accepted: PORT, FROM:TO, FROM: or :TO, of 1 to 65535)
}
