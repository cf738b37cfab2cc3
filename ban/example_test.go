package ban_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

// A source with more than 60 connections is banned for 270 s; the database and
// the gateway never are.
func Example() {
	ctx := context.Background()
	now := time.Date(2026, 12, 22, 20, 30, 1, 0, time.UTC)
	guard := ban.Guard{
		Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.43/32")},
		System: func(context.Context) ([]ban.Protected, error) {
			gateway := ban.Host(netip.MustParseAddr("203.0.113.1"))
			return []ban.Protected{{Prefix: gateway, Why: "default gateway"}}, nil
		},
	}
	backend := guard.Protect(&ban.Memory{Now: func() time.Time { return now }})
	jail := ban.Jail{MaxRetry: 61, BanTime: 270 * time.Second}

	due := jail.Add(now,
		ban.Hit{Source: netip.MustParseAddr("198.51.100.9"), Count: 684, Reason: "Conn Cnt: 684 is greater than limit:60"},
		ban.Hit{Source: netip.MustParseAddr("203.0.113.43"), Count: 90},
		ban.Hit{Source: netip.MustParseAddr("203.0.113.1"), Count: 70},
		ban.Hit{Source: netip.MustParseAddr("198.51.100.10"), Count: 43})
	fmt.Println(backend.Ban(ctx, due...))
	for e, err := range backend.List(ctx) {
		fmt.Println(e, err)
	}
	// Output:
	// ban: 203.0.113.43/32: protected: it is within 203.0.113.43/32 (allowed)
	// ban: 203.0.113.1/32: protected: it is within 203.0.113.1/32 (default gateway)
	// 198.51.100.9/32 until 2026-12-22T20:34:31Z: Conn Cnt: 684 is greater than limit:60 <nil>
}
