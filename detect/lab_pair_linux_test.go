package detect

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// pair is a client and a server, of one family.
type pair struct {
	*testing.T
	client, server *lab.Host
	addr           func(*lab.Host) netip.Addr
	diag           map[*lab.Host]*sockdiag.Conn
	open           map[net.Conn]bool
}

// inPairs runs a test over both families, side by side.
func inPairs(t *testing.T, test func(*pair)) { inPairsOf(t, true, test) }

func inPairsOf(t *testing.T, parallel bool, test func(*pair)) {
	if parallel {
		t.Parallel()
	}
	for name, addr := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).Addr4, "IPv6": (*lab.Host).Addr6} {
		t.Run(name, func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			p := &pair{T: t, addr: addr, diag: make(map[*lab.Host]*sockdiag.Conn), open: make(map[net.Conn]bool)}
			p.client, p.server = lab.Two(t)
			for _, h := range []*lab.Host{p.client, p.server} {
				c, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
				p.must(err)
				p.diag[h] = c
				t.Cleanup(func() { _ = c.Close() })
			}
			t.Cleanup(func() {
				for c := range p.open {
					_ = c.Close()
				}
			})
			test(p)
		})
	}
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// listen makes a listener on the server. Nothing accepts by itself.
func (p *pair) listen(port uint16) net.Listener {
	p.Helper()
	l, err := p.server.Listen("tcp", netip.AddrPortFrom(p.addr(p.server), port))
	p.must(err)
	p.Cleanup(func() { _ = l.Close() })
	return l
}

func (p *pair) dial(port uint16, wait time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.Context(), wait)
	defer cancel()
	c, err := p.client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(p.addr(p.server), port), nil)
	if err == nil {
		p.open[c] = true
	}
	return c, err
}

// connect makes n connections, both ends of which are returned.
func (p *pair) connect(l net.Listener, n int) (clients, servers []net.Conn) {
	p.Helper()
	for range n {
		c, err := p.dial(uint16(l.Addr().(*net.TCPAddr).Port), 20*time.Second)
		p.must(err)
		s, err := l.Accept()
		p.must(err)
		p.open[s] = true
		clients, servers = append(clients, c), append(servers, s)
	}
	return clients, servers
}

func (p *pair) close(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close() // what the kernel does with it is looked at
		delete(p.open, c)
	}
}

// look reads a host.
func (p *pair) look(h *lab.Host) Host {
	p.Helper()
	s, err := p.diag[h].Snapshot(p.Context(), sockdiag.Query{Info: true, Memory: true})
	p.must(err)
	host := Host{Now: s.Start, Sockets: s.Sockets, Holders: make(map[uint32][]sockdiag.Holder)}
	var inodes []uint32
	for i := range s.Sockets {
		inodes = append(inodes, s.Sockets[i].Inode)
	}
	holders, err := sockdiag.Proc("").Holders(p.Context(), inodes...)
	p.must(err)
	for _, inode := range inodes {
		if of := holders.Of(inode); len(of) > 0 {
			host.Holders[inode] = of
		}
	}
	return host
}

// until looks at a host until the detectors find what is wanted.
func (p *pair) until(h *lab.Host, want func([]Finding) bool, detectors ...Detector) []Finding {
	p.Helper()
	var found []Finding
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if found = Find(p.look(h), detectors...); want(found) {
			return found
		}
	}
	p.Fatalf("found %v\namong %v", found, p.rows(h))
	return nil
}

func (p *pair) rows(h *lab.Host) (rows []string) {
	for _, s := range p.look(h).Sockets {
		rows = append(rows, strings.Join([]string{s.State.String(), s.Local.String(), s.Remote.String(), s.Timer.String()}, " "))
	}
	return rows
}

// quiet checks that nothing is found with the defaults.
func (p *pair) quiet(when string) {
	p.Helper()
	for _, h := range []*lab.Host{p.client, p.server} {
		if found := Find(p.look(h), defaults...); len(found) != 0 {
			p.Errorf("%s, %s: %v", when, h.Name(), found)
		}
	}
}

var defaults = []Detector{Leaks{}, AcceptQueue{}, Descriptors{}, Census{}}

func foundOnce(detector string, n uint64) func([]Finding) bool {
	return func(found []Finding) bool {
		return len(found) == 1 && found[0].Detector == detector && found[0].Count == n
	}
}
