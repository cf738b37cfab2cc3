package conntrack_test

import (
	"fmt"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/conntrack"
)

func ExampleParseExpectation() {
	e, err := conntrack.ParseExpectation("300 proto=6 src=192.0.2.2 dst=192.0.2.1 sport=0 dport=34701 " +
		"mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 " +
		"master-src=192.0.2.1 master-dst=192.0.2.2 sport=51582 dport=21 class=0 helper=ftp")
	fmt.Println(e.Helper, "expects", e.Tuple.Src, "to connect to port", e.Tuple.DstPort, "within", e.Timeout, err)
	// Output: ftp expects 192.0.2.2 to connect to port 34701 within 5m0s <nil>
}

// The counters wrap at 32 bits, which the difference of two readings allows
// for.
func ExampleStats_Sub() {
	read := func(drop string) conntrack.Stats {
		proc := fstest.MapFS{"net/stat/nf_conntrack": {Data: []byte("entries insert_failed drop\n00000007 00000001 " + drop + "\n")}}
		cpus, err := conntrack.ReadStats(proc) // os.DirFS("/proc")
		if err != nil {
			fmt.Println(err)
		}
		return conntrack.Total(cpus)
	}
	earlier, now := read("fffffff0"), read("00000002")
	fmt.Println(now.Sub(earlier))
	// Output: insert_failed=0 drop=18
}

func ExampleUsage_Share() {
	usage, err := conntrack.ReadUsage(fstest.MapFS{ // os.DirFS("/proc")
		"sys/net/netfilter/nf_conntrack_count": {Data: []byte("249037\n")},
		"sys/net/netfilter/nf_conntrack_max":   {Data: []byte("262144\n")},
	})
	share, limited := usage.Share()
	fmt.Println(usage, limited && share > 0.9, err)
	// Output: 249037 of 262144 entries (95.0 %) true <nil>
}
