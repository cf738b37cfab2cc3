package reject_test

import (
	"encoding/hex"
	"fmt"
	"log"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
)

// The firewall of a service has logged a SYN as INVALID, though the service
// listens. An entry of the same addresses and ports says why.
func ExampleExplain() {
	b, _ := hex.DecodeString("450000280000400040060000" + "0a0129c0" + "0a012046" + // from 10.1.41.192 to 10.1.32.70
		"c942238e0fe9fc93000000005002000000000000")
	p, err := packet.Decode(b)
	if err != nil {
		log.Fatal(err)
	}
	entry, err := conntrack.ParseFlow("tcp 6 299 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [UNREPLIED] " +
		"src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 use=1")
	if err != nil {
		log.Fatal(err)
	}
	v := reject.Explain(reject.Evidence{
		Packet:  reject.Found(p.Header),
		Refusal: reject.Logged,
		State:   reject.ParsePrefix("invalid "),
		Reason:  "nf_ct_proto_6: packet (index 0) in dir 1 invalid, state ESTABLISHED ",
		Entry:   reject.Found(entry),
	})
	fmt.Println(v.Rule, v.Cause, v.Confidence)
	fmt.Println(v.Fix[0])
	// Output:
	// C05 ghost certain
	// delete the entry: `conntrack -D -f ipv4 -p tcp -s 10.1.32.70 -d 10.1.41.192 --sport 9102 --dport 51522`
}
