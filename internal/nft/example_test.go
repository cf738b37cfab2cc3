package nft_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// firewall lets answers and one service in and refuses the rest.
var firewall = nft.Table{
	Family: nft.INet, Name: "firewall",
	Chains: []nft.Chain{{
		Name: "input", Hook: nft.Input, Priority: nft.PriorityFilter,
		Rules: []nft.Rule{
			{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
			{CTState: nft.New, Proto: nft.TCP, DstPort: 443, Verdict: nft.Accept},
			{Counter: true, Verdict: nft.RejectAdminProhibited, Comment: "the rest"},
		},
	}},
}

func Example() {
	err := install(context.Background())
	if no, ok := errors.AsType[*lab.Forbidden](err); ok {
		fmt.Fprintln(os.Stderr, no) // says what forbids it and how to allow it
		err = nil
	}
	fmt.Println("error:", err)
	// Output: error: <nil>
}

// install applies the firewall in a namespace of its own and reads the counter
// of its last rule.
func install(ctx context.Context) error {
	n, err := lab.Open()
	if err != nil {
		return err
	}
	defer n.Close()
	host, err := n.Host("host")
	if err != nil {
		return err
	}
	c, err := nft.Dial(host.NetNS())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Apply(ctx, firewall); err != nil {
		return err
	}
	counters, err := c.Counters(ctx, nft.INet, "firewall", "input")
	if err != nil {
		return err
	}
	if last := counters[2]; last.Packets != 0 || last.Comment != "the rest" {
		return fmt.Errorf("the last rule: %+v", last)
	}
	return nil
}

func ExampleConn_Apply_refused() {
	c, err := nft.Dial("")
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // not Linux
		c = &nft.Conn{}
	}
	fmt.Println(c.Apply(context.Background(), nft.Table{
		Family: nft.INet, Name: "firewall",
		Chains: []nft.Chain{{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{DstPort: 443, Verdict: nft.Accept}}}},
	}))
	// Output: nft: rule 1 of chain input of table inet firewall: a port needs a protocol with ports, such as TCP or UDP: protocol is 0
}
