package conntrack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
)

// A recording holds what a dump, or a text, showed: to look at elsewhere, and
// later.
func ExampleReplay() {
	text := strings.NewReader("udp 17 20 src=192.0.2.1 dst=192.0.2.53 sport=4000 dport=53 [UNREPLIED] src=192.0.2.53 dst=192.0.2.1 sport=53 dport=4000 mark=0 use=1")
	var file bytes.Buffer
	if err := conntrack.Record(&file, conntrack.RecordInfo{Host: "gw1"}, conntrack.ReadFlows(text)); err != nil {
		fmt.Println(err)
		return
	}

	info, flows, err := conntrack.Replay(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	for flow, err := range flows {
		fmt.Println(info.Host, flow.Original, flow.Unreplied(), err)
	}
	// Output: gw1 src=192.0.2.1 dst=192.0.2.53 sport=4000 dport=53 true <nil>
}

func ExampleFlow_MarshalJSON() {
	flow, err := conntrack.ParseFlow("udp 17 20 src=192.0.2.1 dst=192.0.2.53 sport=4000 dport=53 src=192.0.2.53 dst=192.0.2.1 sport=53 dport=4000 mark=0 use=1")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := json.MarshalIndent(flow, "", " ")
	fmt.Println(string(text), err)
	// Output:
	// {
	//  "original": {
	//   "src": "192.0.2.1",
	//   "dst": "192.0.2.53",
	//   "proto": "udp",
	//   "sport": 4000,
	//   "dport": 53
	//  },
	//  "reply": {
	//   "src": "192.0.2.53",
	//   "dst": "192.0.2.1",
	//   "proto": "udp",
	//   "sport": 53,
	//   "dport": 4000
	//  },
	//  "status": [
	//   "SEEN_REPLY"
	//  ],
	//  "timeout": 20,
	//  "mark": 0,
	//  "use": 1
	// } <nil>
}

func ExampleReadEvents() {
	const log = "[1795252056.039063]\t[DESTROY] tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=36092 dport=22 " +
		"src=192.0.2.2 dst=192.0.2.1 sport=22 dport=36092 [ASSURED] [USERSPACE] portid=7"
	for event, err := range conntrack.ReadEvents(strings.NewReader(log)) {
		fmt.Println(event.Type, event.At.Time().UTC(), event.Port, event.Expired(), err)
	}
	// Output: DESTROY 2026-11-21 09:07:36.039063 +0000 UTC 7 false <nil>
}
