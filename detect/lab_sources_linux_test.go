package detect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func TestLabTimeWait(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(443)
		c.quiet()
		for i := range 7 { // a busy host
			over(t, c.connect(l, member(ipv6, i+1), 12, "GET /"))
		}
		c.quiet()
		over(t, c.connect(l, member(ipv6, 77), 40, "GET /"))
		f := c.finds("PerSource", memberSource(ipv6, 77), 40, "in TIME_WAIT, on port 443")
		if f.Evidence.Sockets[0].State != sockdiag.TimeWait {
			t.Errorf("evidence %v", f.Evidence.Sockets)
		}
	})
}

func TestLabEstablished(t *testing.T) {
	eachCrowd(t, func(_ *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(5060)
		request := strings.Repeat("INVITE ", 20)
		c.connect(l, member(ipv6, 1), 43, request) // the database
		c.connect(l, member(ipv6, 2), 20, "\n")
		c.quiet()
		c.connect(l, member(ipv6, 77), 61, request)
		c.finds("PerSource", memberSource(ipv6, 77), 61, "in ESTABLISHED, on port 5060")
	})
}

func TestLabIdle(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		l := c.listen(5060)
		c.connect(l, member(ipv6, 1), 43, strings.Repeat("INVITE ", 20))
		c.quiet()
		c.connect(l, member(ipv6, 77), 28, "\n")
		for _, p := range c.connect(l, member(ipv6, 77), 3, "") {
			noError(t, p.server.(*net.TCPConn).SetKeepAlive(true))
		}
		c.connect(l, member(ipv6, 77), 4, strings.Repeat("INVITE ", 20))
		f := c.finds("IdleFlood", memberSource(ipv6, 77), 31, "31 idle", "of 35", "on 28 of them")
		if len(f.Evidence.Missing) != 0 {
			t.Errorf("missing %q", f.Evidence.Missing)
		}
	})
}

// Handshakes that nobody ends, from forged addresses, and then from one.
func TestLabSynFlood(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		c.listen(443)
		c.listen(80)
		to := c.server.Addr4()
		if ipv6 {
			to = c.server.Addr6()
		}
		noError(t, c.client.Do(func() error {
			for i := range 66 {
				if err := forgeSYN(netip.AddrPortFrom(member(ipv6, i+1), 4321), netip.AddrPortFrom(to, 443)); err != nil {
					return err
				}
			}
			return nil
		}))
		f := c.finds("SynFlood", "port 443", 66, "of 66 sources", "forged")
		if f.Sources != nil || f.Evidence.Sockets[0].State != sockdiag.SynRecv {
			t.Errorf("got %+v", f)
		}
	})
}

func TestLabSynFloodOfOne(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		c.listen(443)
		to := c.server.Addr4()
		if ipv6 {
			to = c.server.Addr6()
		}
		noError(t, c.client.Do(func() error {
			var errs []error
			for i := range 66 {
				errs = append(errs, forgeSYN(netip.AddrPortFrom(member(ipv6, 77), uint16(2000+i)), netip.AddrPortFrom(to, 443)))
			}
			return errors.Join(errs...)
		}))
		// PerSource sees the same, at once.
		var found []Finding
		for end := time.Now().Add(crowdPatience); len(found) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			found = Find(Host{Now: now, Sockets: c.sockets()}, sourceDetectors...)
		}
		if len(found) != 2 || found[0].Detector != "PerSource" || found[1].Detector != "SynFlood" {
			t.Fatalf("got %v", found)
		}
		for _, f := range found {
			if len(f.Sources) != 1 || bare(f.Sources[0]) != memberSource(ipv6, 77) {
				t.Errorf("got %+v", f)
			}
		}
	})
}

// SYNs of the server to where nobody answers.
func TestLabOutboundScan(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		noError(t, c.server.Do(func() error { return c.begin(23, 1, ipv6, 41) }))
		c.finds("OutboundScan", "this host, to port 23", 41, "41 destinations", "none of them answers")
	})
}

func TestLabDeadPeer(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.mute()
		noError(t, c.server.Do(func() error { return c.begin(5432, 21, ipv6, 1) }))
		c.finds("OutboundScan", "this host, to "+member(ipv6, 1).String(), 21, "does not answer")
	})
}

// The kernel's own events of connections that are over at once.
func TestLabRate(t *testing.T) {
	eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
		c.own()
		noError(t, c.server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
			{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Accept}}},
		}}))
		found := c.rates(Rate{Limits: []RateLimit{{20, 5 * time.Minute}}})
		l := c.listen(443)
		for i := range 5 {
			over(t, c.connect(l, member(ipv6, i+1), 19, "GET /"))
		}
		over(t, c.connect(l, member(ipv6, 77), 25, "GET /"))
		over(t, c.connect(l, member(ipv6, 78), 20, "GET /"))
		var got []string
		var fix string
		for len(got) < 2 {
			select {
			case f := <-found:
				got, fix = append(got, bare(f.Sources[0])), f.Fix[1]
			case <-time.After(crowdPatience):
				t.Fatalf("found %v", got)
			}
		}
		if want := []string{memberSource(ipv6, 77), memberSource(ipv6, 78)}; !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
		if !Installed(t, "nft") {
			return
		}
		_, err := c.server.Exec(t.Context(), "nft", "flush", "chain", "inet", "filter", "input")
		noError(t, err)
		_, err = c.server.Exec(t.Context(), "sh", "-c", commandsOf(fix)[0])
		noError(t, err)
		c.noRate(found, l, member(ipv6, 79))
		Proved(t, fix)
	})
}

// noRate tries as many connections as were too many, of which not all come
// through. What is found then is those of another source, to another port.
func (c *crowd) noRate(found <-chan Finding, l net.Listener, from netip.Addr) {
	c.t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 300 * time.Millisecond}
	to := netip.AddrPortFrom(c.server.Addr4(), 443)
	if from.Is6() {
		to = netip.AddrPortFrom(c.server.Addr6(), 443)
	}
	made := 0
	noError(c.t, c.client.Do(func() error {
		for range 25 {
			conn, err := d.DialContext(c.t.Context(), "tcp", to.String())
			if err != nil {
				return nil // dropped
			}
			made++
			if err := conn.Close(); err != nil {
				return err
			}
		}
		return nil
	}))
	for range made {
		s, err := l.Accept()
		noError(c.t, err)
		noError(c.t, s.Close())
	}
	if made == 0 || made >= 20 {
		c.t.Errorf("%d connections were made of 25", made)
	}
	over(c.t, c.connect(c.listen(444), member(from.Is6(), 80), 20, "GET /"))
	select {
	case f := <-found:
		if bare(f.Sources[0]) != memberSource(from.Is6(), 80) {
			c.t.Errorf("with the rule: %v", f)
		}
	case <-time.After(crowdPatience):
		c.t.Error("the other port is not found")
	}
}

// rates counts the events of the server until the test ends.
func (c *crowd) rates(d Rate) <-chan Finding {
	c.t.Helper()
	conn, err := conntrack.Dial(&conntrack.Config{NetNS: c.server.NetNS()})
	noError(c.t, err)
	ctx, cancel := context.WithCancel(c.t.Context())
	ready, found := make(chan struct{}), make(chan Finding, 100)
	var done sync.WaitGroup
	done.Go(func() {
		r := d.Start(c.server.Addr4(), c.server.Addr6())
		for e, err := range conn.Events(ctx, &conntrack.EventOptions{Ready: func() { close(ready) }}) {
			if err != nil && ctx.Err() == nil {
				c.t.Error(err)
			} else if f, ok := r.Add(time.Now(), &e); ok {
				found <- f
			}
		}
	})
	c.t.Cleanup(func() {
		cancel()
		done.Wait()
		noError(c.t, conn.Close())
	})
	select {
	case <-ready:
	case <-time.After(crowdPatience):
		c.t.Fatal("no events")
	}
	return found
}

// The commands of the remedies are such as nft takes, in a table that has what
// they name.
func TestLabFixes(t *testing.T) {
	tool, h := lab.Tool(t, "nft"), lab.New(t).MustHost(t, "host")
	run := func(args ...string) error {
		_, err := h.Exec(t.Context(), args[0], args[1:]...)
		return err
	}
	for _, set := range []string{
		"add table inet filter", "add chain inet filter input { type filter hook input priority 0; }",
		"add set inet filter banned4 { type ipv4_addr; flags interval; }", "add set inet filter banned6 { type ipv6_addr; flags interval; }",
	} {
		noError(t, run(tool, set))
	}
	for _, p := range prefixes("192.0.2.7/32", "198.51.100.0/24", "2001:db8:7::/64", "2001:db8::7/128") {
		r := Rate{Sources: Sources{IPv4: p.Bits(), IPv6: p.Bits()}}.Start()
		f := r.finding(now, p, uint16(p.Bits()), r.speeds[0].RateLimit, &conntrack.Flow{})
		for _, text := range []string{banFix(p), f.Fix[1]} {
			command := strings.Split(text, "`")[1]
			if err := run("sh", "-c", command); err != nil {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
}
