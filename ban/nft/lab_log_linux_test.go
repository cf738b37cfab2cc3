package nft_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestLogged: a listener of the group gets the packets of a banned source that are
// dropped, with the prefix, and no others: at a server and at a router.
func TestLogged(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			bad, router, server := lab.Three(t)
			b := open(t, router, nft.Config{Log: &nft.Log{Group: 7, Prefix: "banned: "}, Counters: true})
			r, err := nflog.Listen(&nflog.Config{NetNS: router.NetNS(), Groups: []uint16{7}})
			ok(t, err)
			defer r.Close() //nolint:errcheck // only read from
			from, near, far := f.addr(bad.Addrs(router)), f.addr(router.Addrs(bad)), f.addr(server.Addr4(), server.Addr6())
			connect(t, bad, server, far, netip.AddrPort{}) // before the ban: not logged
			prefix := f.ban(from)
			ok(t, b.Ban(t.Context(), ban.Entry{Prefix: prefix, Until: ban.Forever}))
			connect(t, server, bad, from, netip.AddrPort{}) // not dropped: not logged
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for hook, to := range map[nflog.Hook]netip.Addr{nflog.Input: near, nflog.Forward: far} {
				knock(t, bad, netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(to, 8))
				for p, err := range r.Packets(ctx) {
					ok(t, err)
					h, err := packet.Decode(p.Payload)
					if err != nil || p.Prefix != "banned: " || p.Group != 7 || p.Hook != hook || h.Flags&packet.SYN == 0 ||
						h.Src != from || h.SrcPort != 4000 || h.Dst != to || h.DstPort != 8 {
						t.Errorf("%+v: %v, %v; want a SYN to %v at %v", p, h, err, to, hook)
					}
					break
				}
			}
			packets, _, err := b.Dropped(t.Context(), prefix)
			if err != nil || packets < 2 {
				t.Errorf("Dropped %d packets: %v", packets, err)
			}
		})
	}
}

// knock sends SYNs that nobody answers.
func knock(t *testing.T, from *lab.Host, local, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), silence/4)
	defer cancel()
	if c, err := from.Dial(ctx, "tcp", local, to, nil); err == nil {
		_ = c.Close()
		t.Errorf("a banned source connects: %v", c.LocalAddr())
	}
}
