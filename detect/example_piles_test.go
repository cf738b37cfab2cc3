package detect_test

import (
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// A table as netstat(8) writes it: three connections that the peers have closed.
func ExampleLeaks() {
	const table = `
tcp 0 0 10.1.32.70:9102 10.1.41.192:51522 CLOSE_WAIT
tcp 0 0 10.1.32.70:9102 10.1.41.192:51600 CLOSE_WAIT
tcp 1 0 10.1.32.70:9102 10.1.99.5:41100 CLOSE_WAIT`
	rows := sockdiag.ReadSockets(strings.NewReader(table))
	var counts detect.Counts
	found, err := detect.Scan(detect.Host{}, rows, nil, detect.Leaks{CloseWait: 2}, &counts)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range found {
		fmt.Printf("%s (%s): %d, normal are %d\n", f.Subject, f.Confidence, f.Count, f.Limit)
	}
	fmt.Println(counts.Sockets[sockdiag.CloseWait], "CLOSE_WAIT of", counts.Sockets.Total())
	// Output:
	// CLOSE_WAIT, port 9102 (possible): 3, normal are 2
	// 3 CLOSE_WAIT of 3
}

// A server with 1024 descriptors, of which 200 went in half a minute.
func ExampleDescriptors() {
	process := sockdiag.Process{PID: 1234, Command: "sipd"}
	open := func(n uint64) []detect.OpenFiles {
		return []detect.OpenFiles{{Process: process, Descriptors: sockdiag.Descriptors{Used: n, SoftLimit: 1024, HardLimit: 4096}}}
	}
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	host := detect.Host{Now: now, Files: open(684), Earlier: detect.Earlier{At: now.Add(-30 * time.Second), Files: open(484)}}
	for _, f := range detect.Find(host, detect.Descriptors{}) {
		fmt.Println(f.Cause)
		fmt.Println(f.Fix[0])
	}
	// Output:
	// 684 of 1024 file descriptors are open (67%); 6.7 more a second: none is left in 51s
	// raise the soft limit to the hard one, at once: `prlimit --pid 1234 --nofile=4096:`
}
