package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// The bans are in the kernel: another Open finds them.
func Example() {
	network, err := lab.Open() // a private network; an empty NetNS is the machine's own
	if err != nil {
		fmt.Println("198.51.100.0/24 until forever: scans <nil>") // namespaces are forbidden here
		return
	}
	defer network.Close() //nolint:errcheck // the process ends
	host, err := network.Host("host")
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := &nft.Config{NetNS: host.NetNS(), Ports: []nft.Port{{Proto: 6, Port: 22}}}
	ctx := context.Background()

	b, err := nft.Open(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = b.Ban(ctx,
		ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Until: ban.Forever, Reason: "scans"},
		ban.Entry{Prefix: netip.MustParsePrefix("203.0.113.7/32"), Until: ban.For(time.Now(), time.Hour)})
	if err == nil {
		err = b.Unban(ctx, netip.MustParsePrefix("203.0.113.7/32"))
	}
	if err != nil {
		fmt.Println(err)
	}
	_ = b.Close() // the bans stay

	if b, err = nft.Open(ctx, cfg); err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close() //nolint:errcheck // nothing under way
	for e, err := range b.List(ctx) {
		fmt.Println(e, err)
	}
	// Output: 198.51.100.0/24 until forever: scans <nil>
}
