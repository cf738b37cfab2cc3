package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/jailer"
	"github.com/connsleuth/connsleuth/internal/lab"
	nftables "github.com/connsleuth/connsleuth/internal/nft"
)

// Town is a server that tracks connections, with visitors behind a router, each in
// a network of its own.
type Town struct {
	*testing.T
	Server *lab.Host
	Ban    string         // the backend: nft, ipset, fail2ban, memory
	Jailer *jailer.Server // of fail2ban

	net     *lab.Network
	router  *lab.Host
	counter ban.Counter // of nft
	mu      sync.Mutex
	closers []io.Closer
}

// Patience is how long anything is waited for.
const Patience = 20 * time.Second

// Set is what the backend's set or table is called.
const Set = "banned"

// Each runs a replay with every backend that acts, and with memory.
func Each(t *testing.T, replay func(*Town)) {
	for _, backend := range []string{"memory", "nft", "ipset", "fail2ban"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			replay(New(t, backend))
		})
	}
}

// New makes the server, with the rules that an ipset needs, or a fail2ban-server
// in it.
func New(t *testing.T, backend string) *Town {
	t.Helper()
	n := lab.New(t)
	w := &Town{T: t, Server: n.MustHost(t, "server"), Ban: backend, net: n, router: n.MustHost(t, "router")}
	t.Cleanup(w.close)
	w.ok(n.Link(w.router, w.Server, lab.Near4, lab.Near6))
	w.ok(n.Router(w.router, w.Server))
	w.ok(w.Server.Rules(t.Context(), nftables.Table{Family: nftables.INet, Name: "filter", Chains: []nftables.Chain{
		{Name: "input", Hook: nftables.Input, Rules: []nftables.Rule{{CTState: nftables.Established, Verdict: nftables.Accept}}},
	}}))
	switch backend {
	case "ipset":
		w.ipset()
	case "fail2ban":
		w.fail2ban("iptables")
	case "nft":
		b, err := nft.Open(t.Context(), &nft.Config{NetNS: w.Server.NetNS(), Table: Set, Counters: true})
		w.ok(err)
		w.keep(b)
		w.counter = b
	}
	return w
}

// ipset makes the sets, and the rules for them.
func (w *Town) ipset() {
	w.Helper()
	lab.Tool(w, "iptables")
	sets, err := ipset.Open(w.Context(), &ipset.Config{NetNS: w.Server.NetNS(), Name: Set, Timeout: 300 * time.Second})
	w.ok(err)
	for _, rule := range sets.Rules() {
		args := strings.Fields(rule)
		_, err := w.Server.Exec(w.Context(), args[0], args[1:]...)
		w.ok(err)
	}
	w.ok(sets.Close())
}

// Args are those of an example that acts, with what the test adds.
func (w *Town) Args(more ...string) []string {
	args := []string{"-apply", "-json", "-backend", w.Ban, "-set", Set}
	if w.Jailer != nil {
		args = append(args[:4:4], "-socket", w.Jailer.Socket(), "-set", Jails, "-jail-prefixes")
	}
	return append(args, more...)
}

func (w *Town) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *Town) keep(c ...io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, c...)
}

func (w *Town) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.closers {
		_ = c.Close() // it may be closed
	}
}

// Visitor is a host that comes to the server.
type Visitor struct {
	*lab.Host
	town *Town
}

// Visitor makes the nth visitor: 10.0.N.2 and 2001:db8:10N::2.
func (w *Town) Visitor(n int) *Visitor {
	w.Helper()
	h := w.net.MustHost(w, fmt.Sprintf("visitor%d", n))
	v4, v6 := netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", n)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:10%d::/64", n))
	w.ok(w.net.Link(w.router, h, v4, v6))
	w.ok(w.net.Route(h, w.router))
	return &Visitor{h, w}
}

// Source is what a ban of the visitor has: its address, or its /64.
func (v *Visitor) Source(ipv6 bool) string {
	if ipv6 {
		return netip.PrefixFrom(v.Addr6(), 64).Masked().String()
	}
	return ban.Host(v.Addr4()).String()
}

// Serve accepts connections to a port for as long as the test runs. What serve
// leaves open stays open.
func (w *Town) Serve(port uint16, serve func(net.Conn)) {
	w.Helper()
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := w.Server.Listen(network, netip.AddrPortFrom(netip.Addr{}, port))
		w.ok(err)
		w.keep(l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				w.keep(c)
				go serve(c)
			}
		}()
	}
}

// Echo sends back what comes.
func Echo(c net.Conn) {
	_, _ = io.Copy(c, c) // until it is closed
	_ = c.Close()
}

// HangUp closes at once, which leaves the server in TIME_WAIT.
func HangUp(c net.Conn) { _ = c.Close() }

// Dial connects to the server within a time.
func (v *Visitor) Dial(ipv6 bool, port uint16, within time.Duration) (net.Conn, error) {
	to := netip.AddrPortFrom(v.town.Server.Addr4(), port)
	if ipv6 {
		to = netip.AddrPortFrom(v.town.Server.Addr6(), port)
	}
	ctx, cancel := context.WithTimeout(v.town.Context(), within)
	defer cancel()
	c, err := v.Host.Dial(ctx, "tcp", netip.AddrPort{}, to, nil)
	if err == nil {
		v.town.keep(c)
	}
	return c, err
}

// Open makes n connections to the server.
func (v *Visitor) Open(ipv6 bool, port uint16, n int) []net.Conn {
	v.town.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := v.Dial(ipv6, port, Patience)
		v.town.ok(err)
		conns[i] = c
	}
	return conns
}

// Come makes n connections, and on each waits for the server to close it.
func (v *Visitor) Come(ipv6 bool, port uint16, n int) {
	v.town.Helper()
	for _, c := range v.Open(ipv6, port, n) {
		if err := Over(c); !errors.Is(err, io.EOF) {
			v.town.Fatalf("the server does not hang up: %v", err)
		}
		v.town.ok(c.Close())
	}
}

// Over waits for the end of a connection, and returns how it ended:
// os.ErrDeadlineExceeded if it does not.
func Over(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		return io.EOF
	}
	return err
}

// Talk sends bytes and waits for their echo.
func Talk(c net.Conn, text string) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(text)))
	return err
}

// Gone wants connections to have been ended by a reset, or by the server.
func (w *Town) Gone(conns []net.Conn) {
	w.Helper()
	for _, c := range conns {
		if err := Over(c); errors.Is(err, os.ErrDeadlineExceeded) {
			w.Fatalf("%v goes on", c.LocalAddr())
		}
	}
}

// Banned wants a visitor kept out, and, with nft, its packets counted.
func (v *Visitor) Banned(ipv6 bool, port uint16) {
	w := v.town
	w.Helper()
	if w.Ban == "memory" {
		return
	}
	for end := time.Now().Add(Patience); ; {
		if c, err := v.Dial(ipv6, port, 300*time.Millisecond); err == nil {
			w.Fatalf("a connection from %v is let in", c.LocalAddr())
		}
		if w.counter == nil {
			return
		}
		packets, _, err := w.counter.Dropped(w.Context(), netip.MustParsePrefix(v.Source(ipv6)))
		w.ok(err)
		if packets > 0 {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("%s: no packet was dropped", v.Source(ipv6))
		}
	}
}

// Shut waits until a visitor is kept out.
func (v *Visitor) Shut(ipv6 bool, port uint16) {
	v.town.Helper()
	for end := time.Now().Add(Patience); ; {
		c, err := v.Dial(ipv6, port, 300*time.Millisecond)
		if err != nil {
			return
		}
		v.town.ok(c.Close())
		if time.Now().After(end) {
			v.town.Fatalf("%s is let in", v.Source(ipv6))
		}
	}
}

// Served wants a visitor that connects anew to be answered.
func (v *Visitor) Served(port uint16) {
	v.town.Helper()
	for _, ipv6 := range []bool{false, true} {
		c, err := v.Dial(ipv6, port, Patience)
		v.town.ok(err)
		v.town.ok(Talk(c, "hello"))
	}
}

// Listing is what the tools list of the bans; empty where one is missing, or there
// is none.
func (w *Town) Listing() string {
	w.Helper()
	var list strings.Builder
	for _, command := range map[string][]string{
		"nft": {"nft list table inet " + Set}, "ipset": {"ipset list"}, "fail2ban": {"iptables -S", "ip6tables -S"},
	}[w.Ban] {
		words := strings.Fields(command)
		out, err := w.Server.Exec(w.Context(), words[0], words[1:]...)
		if err != nil {
			w.Logf("%v", err)
			return ""
		}
		list.Write(out)
	}
	return list.String()
}

// Lists wants each text in one line of the listing, if there is one.
func (w *Town) Lists(texts ...string) {
	w.Helper()
	list := w.Listing()
	for _, text := range texts {
		if list != "" && !strings.Contains(list, text) {
			w.Errorf("no %q in\n%s", text, list)
		}
	}
}
