package detect

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// listener is one of the host, with n of backlog waiting.
func listener(family sockdiag.Family, local string, n, backlog uint32) sockdiag.Socket {
	return sockdiag.Socket{
		Protocol: sockdiag.TCP, Family: family, State: sockdiag.Listen, Inode: 7, Cookie: 70,
		Local: netip.MustParseAddrPort(local), AcceptQueue: n, Backlog: backlog,
	}
}

// waiters are n connections to a local address that wait for accept(2).
func waiters(n int, family sockdiag.Family, local string, wait time.Duration) []sockdiag.Socket {
	return pileOf(n, sockdiag.Established, func(_ int, s *sockdiag.Socket) {
		s.Family, s.Local, s.Inode, s.UID = family, netip.MustParseAddrPort(local), 0, 0
		s.Info.LastDataRecv, s.Info.LastDataSent = 0, wait
	})
}

func TestAcceptQueueFull(t *testing.T) {
	for _, tt := range []struct {
		n, backlog uint32
		want       Severity // 0 is none
	}{
		{0, 0, 0}, {0, 128, 0}, {1, 128, 0}, {127, 128, 0}, {128, 128, Warning}, {129, 128, Critical}, {1, 0, Critical},
	} {
		for _, local := range []string{"10.1.32.70:443", "[2001:db8:32::70]:443"} {
			h := Host{Sockets: []sockdiag.Socket{listener(sockdiag.IPv4, local, tt.n, tt.backlog)}}
			found := examine(t, AcceptQueue{}, h)
			if tt.want == 0 {
				if len(found) != 0 {
					t.Errorf("%d of %d: %v", tt.n, tt.backlog, found)
				}
				continue
			}
			if len(found) != 1 || found[0].Severity != tt.want || found[0].Subject != "listener "+local || found[0].Confidence != Possible ||
				found[0].Count != uint64(tt.n) || found[0].Limit != uint64(tt.backlog) || len(found[0].Evidence.Missing) != 2 {
				t.Errorf("%d of %d: %+v", tt.n, tt.backlog, found)
			}
			h.Sockets[0].Fields = sockdiag.UnknownBacklog
			if found := examine(t, AcceptQueue{}, h); len(found) != 0 {
				t.Errorf("without the backlog: %v", found)
			}
		}
	}
}

// What waits is that listener's which the kernel would have chosen.
func TestAcceptQueueOf(t *testing.T) {
	const v4, v6 = sockdiag.IPv4, sockdiag.IPv6
	for _, tt := range []struct {
		name     string
		listener sockdiag.Socket
		others   []sockdiag.Socket
		waiters  []sockdiag.Socket
		want     bool
	}{
		{"same address", listener(v4, "10.1.32.70:443", 5, 4), nil, waiters(5, v4, "10.1.32.70:443", 0), true},
		{"another port", listener(v4, "10.1.32.70:444", 5, 4), nil, waiters(5, v4, "10.1.32.70:443", 0), false},
		{"another address", listener(v4, "10.1.32.71:443", 5, 4), nil, waiters(5, v4, "10.1.32.70:443", 0), false},
		{"any address", listener(v4, "0.0.0.0:443", 5, 4), nil, waiters(5, v4, "10.1.32.70:443", 0), true},
		{"any address but that of another", listener(v4, "0.0.0.0:443", 5, 4), []sockdiag.Socket{listener(v4, "10.1.32.70:443", 0, 4)},
			waiters(5, v4, "10.1.32.70:443", 0), false},
		{"IPv6", listener(v6, "[::]:443", 5, 4), nil, waiters(5, v6, "[2001:db8:32::70]:443", 0), true},
		{"IPv4 at an IPv6 listener", listener(v6, "[::]:443", 5, 4), nil, waiters(5, v6, "10.1.32.70:443", 0), true},
		{"IPv4 of the IPv4 listener", listener(v6, "[::]:443", 5, 4), []sockdiag.Socket{listener(v4, "0.0.0.0:443", 5, 8)},
			waiters(5, v4, "10.1.32.70:443", 0), false},
		{"mapped address", listener(v6, "10.1.32.70:443", 5, 4), nil, waiters(5, v6, "10.1.32.70:443", 0), true},
		{"open connections", listener(v4, "10.1.32.70:443", 5, 4), nil, pileOf(5, sockdiag.Established), false},
		{"connections of text", listener(v4, "10.1.32.70:443", 5, 4), nil, pileOf(5, sockdiag.Established, fromText), false},
	} {
		h := Host{Now: now, Sockets: slices.Concat(tt.waiters, tt.others, []sockdiag.Socket{tt.listener})}
		found := examine(t, AcceptQueue{}, h)
		if len(found) != 1 {
			t.Errorf("%s: %v", tt.name, found)
			continue
		}
		if got := len(found[0].Evidence.Sockets) == 1+evidenceOf && mentions(found[0].Cause, "there wait"); got != tt.want {
			t.Errorf("%s: %v", tt.name, found)
		}
	}
}

// One bound to the address comes before one bound to the interface, and that
// before one bound to neither.
func TestAcceptQueueInterface(t *testing.T) {
	bound, neither := listener(sockdiag.IPv6, "[::]:443", 6, 4), listener(sockdiag.IPv6, "[::]:443", 5, 4)
	bound.Interface = 3
	exact := listener(sockdiag.IPv6, "[fe80::1]:443", 7, 4)
	rows := waiters(5, sockdiag.IPv6, "[fe80::1]:443", 0)
	for i := range rows {
		rows[i].Interface = 3
	}
	listeners := []sockdiag.Socket{exact, bound, neither}
	for i := range listeners {
		found := examine(t, AcceptQueue{}, Host{Sockets: slices.Concat(listeners[i:], rows)})
		if len(found) != len(listeners)-i {
			t.Errorf("got %v", found)
		}
		for _, f := range found {
			if first := f.Evidence.Sockets[0] == listeners[i]; mentions(f.Cause, "there wait") != first {
				t.Errorf("without %d: %v", i, f)
			}
		}
	}
}

func TestAcceptQueueAdvice(t *testing.T) {
	for _, tt := range []struct {
		wait     time.Duration
		n        uint32
		severity Severity
		words    []string
	}{
		{999 * time.Millisecond, 5, Warning, []string{"longer than 999ms", "backlog is too small", "net.core.somaxconn"}},
		{999 * time.Millisecond, 4, Info, []string{"backlog is too small"}},
		{time.Second, 5, Critical, []string{"has waited for 1s", "does not accept", "sport = :443"}},
		{90 * time.Second, 4, Warning, []string{"has waited for 1m30s"}},
	} {
		h := Host{Now: now, Sockets: append(waiters(5, sockdiag.IPv4, "10.1.32.70:443", tt.wait), listener(sockdiag.IPv4, "10.1.32.70:443", tt.n, 4))}
		found := examine(t, AcceptQueue{}, h)
		if len(found) != 1 || found[0].Severity != tt.severity || found[0].Confidence != Likely || !mentions(found[0].String(), tt.words...) {
			t.Errorf("%v: %v", tt.wait, found)
			continue
		}
		if since := found[0].Since; since.IsZero() != (tt.wait < time.Second) || !since.IsZero() && !since.Equal(now.Add(-tt.wait)) {
			t.Errorf("%v: since %v", tt.wait, since)
		}
	}
}

// Listeners that share a port are told apart by their cookies; one source that
// has most of what waits is named.
func TestAcceptQueueShared(t *testing.T) {
	a, b := listener(sockdiag.IPv4, "0.0.0.0:443", 5, 4), listener(sockdiag.IPv4, "0.0.0.0:443", 1, 4)
	b.Cookie, a.Fields, a.Memory.Drops = 71, sockdiag.FieldMemory, 12
	rows := waiters(6, sockdiag.IPv4, "10.1.32.70:443", time.Minute)
	for i := range 4 {
		rows[i].Remote = netip.AddrPortFrom(netip.MustParseAddr(client), uint16(50000+i))
	}
	rows[0].State = sockdiag.CloseWait
	found := examine(t, AcceptQueue{}, Host{Now: now, Sockets: append([]sockdiag.Socket{a, b}, rows...)})
	if len(found) != 1 || found[0].Subject != "listener 0.0.0.0:443, cookie 70" || len(found[0].Evidence.Missing) != 1 ||
		!slices.Equal(found[0].Sources, []netip.Prefix{netip.MustParsePrefix(client + "/32")}) ||
		!mentions(found[0].Cause, "one of 2 listeners", "4 of "+client, "the clients of 1 have given up", "12 handshakes were dropped") {
		t.Errorf("got %+v", found)
	}
}
