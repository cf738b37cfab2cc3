package conntrack_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// An entry that is ESTABLISHED and yet UNREPLIED was picked up in the middle:
// the tracker has forgotten the connection, and has seen one side of it since.
func ExampleReadFlows() {
	const proc = `
ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.32.71 dst=10.1.41.192 sport=9102 dport=40112 src=10.1.41.192 dst=10.1.32.71 sport=40112 dport=9102 [ASSURED] mark=0 secmark=0 use=2
ipv4     2 tcp      6 431965 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 mark=0 secmark=0 use=2
ipv4     2 tcp      6 431965 ESTABLISHED src=10.1.32.70
`
	for flow, err := range conntrack.ReadFlows(strings.NewReader(proc)) {
		switch {
		case err != nil:
			fmt.Println(err)
		case flow.TCP.State == conntrack.TCPEstablished && flow.Unreplied():
			idle := 5*24*time.Hour - flow.Timeout
			fmt.Printf("%v port %d, idle for %v\n", flow.Original.Dst, flow.Original.DstPort, idle)
		}
	}
	// Output:
	// 10.1.41.192 port 51522, idle for 35s
	// conntrack: line 4, column 56: the original tuple is not whole, or has keys of another protocol
}

func ExampleFilter_Match() {
	// Connections nobody answered, from one network.
	filter := &conntrack.Filter{
		TCPStates:   conntrack.TCPStateSet(conntrack.TCPSynSent, conntrack.TCPSynRecv),
		StatusUnset: conntrack.SeenReply,
		Src:         netip.MustParsePrefix("192.0.2.0/24"),
	}
	for _, line := range []string{
		"tcp 6 117 SYN_SENT src=192.0.2.5 dst=198.51.100.7 sport=1031 dport=23 [UNREPLIED] src=198.51.100.7 dst=192.0.2.5 sport=23 dport=1031 use=1",
		"tcp 6 57 SYN_RECV src=192.0.2.5 dst=198.51.100.7 sport=1032 dport=22 src=198.51.100.7 dst=192.0.2.5 sport=22 dport=1032 use=1",
		"tcp 6 117 SYN_SENT src=203.0.113.9 dst=198.51.100.7 sport=1031 dport=23 [UNREPLIED] src=198.51.100.7 dst=203.0.113.9 sport=23 dport=1031 use=1",
	} {
		flow, err := conntrack.ParseFlow(line)
		fmt.Println(filter.Match(&flow), err)
	}
	// Output:
	// true <nil>
	// false <nil>
	// false <nil>
}

// A value that is absent is not a zero one: a flow that a flow table forwards
// has no timeout.
func ExampleFlow_Has() {
	flow, err := conntrack.ParseFlow("tcp 6 src=192.0.2.1 dst=198.51.100.7 sport=40000 dport=443 " +
		"src=198.51.100.7 dst=203.0.113.4 sport=443 dport=40000 [OFFLOAD] mark=0 use=2")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("timeout:", flow.Timeout, flow.Has(conntrack.FieldTimeout))
	fmt.Println("mark:", flow.Mark, flow.Has(conntrack.FieldMark))
	fmt.Println("offloaded:", flow.Offloaded())
	fmt.Println("translated:", flow.Translated())
	// Output:
	// timeout: 0s false
	// mark: 0 true
	// offloaded: true
	// translated: true
}
