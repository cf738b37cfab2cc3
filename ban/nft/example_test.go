package nft_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
)

func Example() {
	err := protect(context.Background())
	if no, ok := errors.AsType[*lab.Forbidden](err); ok {
		fmt.Fprintln(os.Stderr, no) // says what forbids it and how to allow it
		err = nil
	}
	fmt.Println("error:", err)
	// Output: error: <nil>
}

// protect bans in a private network; an empty NetNS is the machine's own.
func protect(ctx context.Context) error {
	network, err := lab.Open()
	if err != nil {
		return err
	}
	defer network.Close() //nolint:errcheck // the program ends
	host, err := network.Host("host")
	if err != nil {
		return err
	}
	// Only SSH is kept from those who are banned.
	b, err := nft.Open(ctx, &nft.Config{NetNS: host.NetNS(), Ports: []nft.Port{{Proto: 6, Port: 22}}})
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // nothing under way
	scanner := netip.MustParsePrefix("198.51.100.0/24")
	err = b.Ban(ctx, ban.Entry{Prefix: scanner, Until: ban.For(time.Now(), time.Hour), Reason: "scans"})
	if err != nil {
		return err
	}
	if err := b.Enforcing(ctx); err != nil {
		return err
	}
	for e, err := range b.List(ctx) { // those of others and of earlier runs, too
		if err != nil {
			return err
		}
		if e.Prefix != scanner {
			return fmt.Errorf("listed: %v", e)
		}
	}
	return b.Unban(ctx, scanner)
}
