package ipset_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// A source with too many connections is banned in the set of a firewall, which
// lacks the rule yet.
func Example() {
	const output = `iptables -I INPUT -m conntrack --ctdir ORIGINAL -m set --match-set blocked src -j DROP
198.51.100.9/32: Conn Cnt: 684 is greater than limit:60`
	network, err := lab.Open() // stands for the host
	if err != nil {
		fmt.Println(output) // namespaces are forbidden here
		return
	}
	defer network.Close()
	host, err := network.Host("host")
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	sets, err := ipset.Open(ctx, &ipset.Config{NetNS: host.NetNS(), Name: "blocked", Kinds: ipset.Hosts4, Timeout: 300 * time.Second})
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Println(output) // the kernel has no sets
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer sets.Close()
	if err := sets.Enforcing(ctx); err != nil {
		fmt.Println(strings.Join(sets.Rules(), "\n"))
	}
	err = sets.Ban(ctx, ban.Entry{
		Prefix: netip.MustParsePrefix("198.51.100.9/32"),
		Until:  ban.For(time.Now(), 270*time.Second),
		Reason: "Conn Cnt: 684 is greater than limit:60",
	})
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range sets.List(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v: %s\n", e.Prefix, e.Reason)
	}
	// Output:
	// iptables -I INPUT -m conntrack --ctdir ORIGINAL -m set --match-set blocked src -j DROP
	// 198.51.100.9/32: Conn Cnt: 684 is greater than limit:60
}
