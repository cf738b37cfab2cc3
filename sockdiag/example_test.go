package sockdiag_test

import (
	"fmt"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// A state is read as ss, netstat or the kernel write it.
func ExampleParseState() {
	for _, name := range []string{"ESTAB", "close-wait", "FIN_WAIT2"} {
		s, err := sockdiag.ParseState(name)
		fmt.Println(s, s.SS(), err)
	}
	// Output:
	// ESTABLISHED ESTAB <nil>
	// CLOSE_WAIT CLOSE-WAIT <nil>
	// FIN_WAIT2 FIN-WAIT-2 <nil>
}
