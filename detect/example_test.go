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

// The table of a server that one client fills with closed connections.
func ExamplePressure() {
	const row = "tcp 6 99 TIME_WAIT src=192.0.2.7 dst=192.0.2.10 sport=%d dport=443 src=192.0.2.10 dst=192.0.2.7 sport=443 dport=%[1]d [ASSURED] use=1"
	host := detect.Host{
		Now:   time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC),
		Usage: conntrack.Usage{Count: 240_000, Max: 262_144, Fields: conntrack.UsageMax},
		Earlier: detect.Earlier{
			At:    time.Date(2026, 5, 4, 11, 59, 0, 0, time.UTC),
			Usage: conntrack.Usage{Count: 234_000, Max: 262_144, Fields: conntrack.UsageMax},
		},
	}
	for port := range 3 {
		f, err := conntrack.ParseFlow(fmt.Sprintf(row, 58_936+port))
		if err != nil {
			log.Fatal(err)
		}
		host.Flows = append(host.Flows, f)
	}
	for _, f := range detect.Find(host, detect.Pressure{}) {
		for part := range strings.SplitSeq(f.Cause, "; ") {
			fmt.Println(part)
		}
		fmt.Println("Fix:")
		for _, fix := range f.Fix {
			fmt.Println(fix)
		}
	}
	// Output:
	// the table has 240000 of 262144 entries (92 %), 58 MiB of kernel memory
	// it grows by 100 a second and is full in 221s
	// by state TIME_WAIT 100 %, by service tcp/443 100 %, by source 192.0.2.7/32 100 %
	// early drop can evict the 0 (0 %) that are not assured, and from 95 % on the 3 that are assured and closing go too
	// Fix:
	// if nobody needs the 3 entries from 192.0.2.7/32: ban it, then `conntrack -D -f ipv4 -s 192.0.2.7`
	// keep TIME_WAIT entries for a shorter time: `sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=30`
	// raise the limit, in the initial network namespace: `sysctl -w net.netfilter.nf_conntrack_max=524288`, which is 128 MiB when full; where a source fills the table this only delays it
}

// Ten ports are few for a gateway.
func ExamplePortSpace() {
	const row = "tcp 6 99 TIME_WAIT src=10.0.0.5 dst=198.51.100.80 sport=%d dport=443 src=198.51.100.80 dst=192.0.2.10 sport=443 dport=%[1]d [ASSURED] use=1"
	var host detect.Host
	for port := range 9 {
		f, err := conntrack.ParseFlow(fmt.Sprintf(row, 2000+port))
		if err != nil {
			log.Fatal(err)
		}
		host.Flows = append(host.Flows, f)
	}
	ports := conntrack.PortRange{First: 2000, Last: 2009} // snat to 192.0.2.10:2000-2009
	for _, f := range detect.Find(host, detect.PortSpace{Ports: ports}) {
		fmt.Printf("%s: %d of %d\n", f.Subject, f.Count, f.Limit)
	}
	// Output:
	// source NAT 192.0.2.10 > 198.51.100.80:443/tcp: 9 of 10
}

// A service's table was flushed, and a client reset its connection after that.
func ExamplePortReuse() {
	f, err := conntrack.ParseFlow("tcp 6 7 CLOSE src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 [ASSURED] use=1")
	if err != nil {
		log.Fatal(err)
	}
	host := detect.Host{Flows: []conntrack.Flow{f}, Sockets: []sockdiag.Socket{{
		Family: sockdiag.IPv4, State: sockdiag.Listen, Local: netip.MustParseAddrPort("10.1.32.70:9102"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
	}}}
	for _, f := range detect.Find(host, detect.PortReuse{}) {
		fmt.Println(f.Fix[0])
	}
	// Output:
	// delete the entry: `conntrack -D -f ipv4 -p tcp -s 10.1.32.70 -d 10.1.41.192 --sport 9102 --dport 51522`
}
