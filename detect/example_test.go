package detect_test

import (
	"fmt"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// A service on port 9102 had one entry of a connection that is closing, with
// its socket, and one of a connection that nobody has any more.
func ExampleGhosts() {
	const table = `
tcp 6 35 CLOSE_WAIT src=10.1.41.192 dst=10.1.32.70 sport=51600 dport=9102 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51600 [ASSURED] use=2
tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=2`
	host := detect.Host{Now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)}
	for f, err := range conntrack.ReadFlows(strings.NewReader(table)) {
		if err != nil {
			log.Fatal(err)
		}
		host.Flows = append(host.Flows, f)
	}
	host.Sockets = []sockdiag.Socket{{
		Family: sockdiag.IPv4, State: sockdiag.CloseWait,
		Local: netip.MustParseAddrPort("10.1.32.70:9102"), Remote: netip.MustParseAddrPort("10.1.41.192:51600"),
	}}

	for _, f := range detect.Find(host, detect.Ghosts{}) {
		fmt.Printf("%s, %s (%s), until %s\n", f.Subject, f.Severity, f.Confidence, f.Until.Format(time.TimeOnly))
		fmt.Println(f.Fix[0])
	}
	// Output:
	// 10.1.32.70:9102 > 10.1.41.192:51522, critical (likely), until 12:04:59
	// delete the entry: `conntrack -D -f ipv4 -p tcp -s 10.1.32.70 -d 10.1.41.192 --sport 9102 --dport 51522`
}

// A query takes longer than the tracker remembers.
func ExampleLostFlows() {
	host := detect.Host{
		Sockets: []sockdiag.Socket{{
			Family: sockdiag.IPv4, State: sockdiag.Established,
			Local: netip.MustParseAddrPort("192.0.2.1:40000"), Remote: netip.MustParseAddrPort("192.0.2.2:5432"),
		}},
		Flows: []conntrack.Flow{{}}, // of other connections
	}
	for _, f := range detect.Find(host, detect.LostFlows{}) {
		fmt.Println(f.Subject)
		fmt.Println(f.Cause)
	}
	// Output:
	// 192.0.2.1:40000 > 192.0.2.2:5432
	// the socket is ESTABLISHED, but its conntrack entry is gone: a packet from the peer is of no known connection
}
