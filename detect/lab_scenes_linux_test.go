package detect

import (
	"io"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// scene is an incident, or none, on the server of a crowd. All detectors look
// at it, and find what is wanted and nothing else.
type scene struct {
	name string
	// play makes it so.
	play func(s *stage)
	// want is how many findings each detector has; those of Audit that are
	// only worth knowing, of which the kernel's defaults have some, are left
	// out.
	want map[string]int
	// first is whose the first finding is, and subject and count are its own.
	first   string
	subject func(s *stage) string
	count   uint64
	// mended is what is left to do by those who run the service, once the
	// commands of the findings were run.
	mended func(s *stage)
}

// stage is where a scene plays.
type stage struct {
	*crowd
	ipv6  bool
	ct    *conntrack.Conn
	pairs []bothEnds
	ports []net.Listener
}

func newStage(t *testing.T, c *crowd, ipv6 bool) *stage {
	t.Helper()
	s := &stage{crowd: c, ipv6: ipv6}
	var err error
	s.ct, err = conntrack.Dial(&conntrack.Config{NetNS: c.server.NetNS()})
	noError(t, err)
	t.Cleanup(func() { noError(t, s.ct.Close()) })
	// The server tracks connections, and refuses none.
	noError(t, c.server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "tracking", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.Established, Verdict: nft.Accept}}},
	}}))
	return s
}

// look reads all that detectors look at.
func (s *stage) look() Host {
	s.t.Helper()
	h := Host{Addrs: []netip.Addr{s.server.Addr4(), s.server.Addr6()}}
	sockets, err := s.diag.Snapshot(s.t.Context(), sockdiag.Query{Info: true, Memory: true})
	noError(s.t, err)
	flows, err := s.ct.Snapshot(s.t.Context(), nil)
	noError(s.t, err)
	h.Now, h.Sockets, h.Flows = time.Now(), sockets.Sockets, flows.Flows
	h.Usage, err = s.ct.Usage(s.t.Context())
	noError(s.t, err)
	h.Stats, err = s.ct.Stats(s.t.Context())
	noError(s.t, err)
	h.Settings, err = conntrack.ReadSettings(s.server.FS())
	noError(s.t, err)
	h.Sysctls, err = sockdiag.ReadSettings(s.server.FS())
	noError(s.t, err)
	h.Counters, err = sockdiag.ReadCounters(s.server.FS())
	noError(s.t, err)
	return h
}

// sceneDetectors are all, with the little patience of a test.
func sceneDetectors() []Detector {
	all := everyone()
	for i, d := range all {
		switch d.(type) {
		case IdleFlood:
			all[i] = IdleFlood{Silence: 20 * time.Millisecond}
		case Leaks:
			all[i] = Leaks{Age: 20 * time.Millisecond}
		case AcceptQueue:
			all[i] = AcceptQueue{Stuck: 20 * time.Millisecond}
		}
	}
	return all
}

// found is what they find that matters, and how many each.
func (s *stage) found() ([]Finding, map[string]int) {
	s.t.Helper()
	var matter []Finding
	counts := make(map[string]int)
	for _, f := range Find(s.look(), sceneDetectors()...) {
		if f.Detector != "Audit" || f.Severity > Info {
			matter = append(matter, f)
			counts[f.Detector]++
		}
	}
	return matter, counts
}

// until waits until the findings are those wanted, of which the first is of a
// detector and has a count, unless these are zero.
func (s *stage) until(when string, want map[string]int, first string, count uint64) []Finding {
	s.t.Helper()
	var found []Finding
	var counts map[string]int
	for end := time.Now().Add(crowdPatience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		found, counts = s.found()
		if maps.Equal(counts, want) && (first == "" || found[0].Detector == first) && (count == 0 || found[0].Count == count) {
			return found
		}
	}
	s.t.Fatalf("%s: want %v, %s with %d first, found %v: %v", when, want, first, count, counts, found)
	return nil
}

// bad is the member who does it.
func (s *stage) bad() string { return memberSource(s.ipv6, 77) }

func (s *stage) serverAddr() netip.Addr {
	if s.ipv6 {
		return s.server.Addr6()
	}
	return s.server.Addr4()
}

func (s *stage) serve(port uint16) net.Listener {
	l := s.listen(port)
	s.ports = append(s.ports, l)
	return l
}

func (s *stage) enter(l net.Listener, who, n int, request string) []bothEnds {
	s.t.Helper()
	pairs := s.connect(l, member(s.ipv6, who), n, request)
	s.pairs = append(s.pairs, pairs...)
	return pairs
}

// set sets a sysctl of the server.
func (s *stage) set(name, value string) {
	s.t.Helper()
	noError(s.t, s.server.SetSysctl(name, value))
}

// exchange sends from one end to the other, and waits for it.
func exchange(t *testing.T, from, to net.Conn) {
	t.Helper()
	_, err := io.WriteString(from, "again")
	noError(t, err)
	noError(t, to.SetReadDeadline(time.Now().Add(crowdPatience)))
	_, err = io.ReadAtLeast(to, make([]byte, 64), 1)
	noError(t, err)
}

var invite = strings.Repeat("INVITE ", 20)

const ctTCP = "net.netfilter.nf_conntrack_tcp_timeout_"

// scenes are those of the incidents that a snapshot shows.
var scenes = []scene{
	{name: "quiet", play: func(s *stage) { s.serve(443) }},
	// Many clients, connections that come and go, polls without an answer yet,
	// and a database that holds 43 connections.
	{name: "busy", play: func(s *stage) {
		web, db := s.serve(443), s.serve(5432)
		s.enter(db, 1, 43, invite)
		for i := range 12 {
			over(s.t, s.connect(web, member(s.ipv6, 10+i), 8, "GET /"))
			s.enter(web, 30+i, 6, "GET /events")
			s.enter(web, 50+i, 2, "")
		}
	}},
	// The entry of an idle connection ends before the connection. That the
	// timeout is too short is a finding of its own.
	{name: "S1", play: func(s *stage) {
		s.set(ctTCP+"established", "1")
		l := s.serve(5432)
		over(s.t, s.connect(l, member(s.ipv6, 2), 1, "SELECT")) // which the table still has
		s.enter(l, 1, 1, "SELECT")
	}, want: map[string]int{"LostFlows": 1, "Audit": 1}, first: "LostFlows", mended: func(s *stage) {
		// What is picked up again counts as unacknowledged (300 s) until both
		// ends have sent, and had an answer.
		p := s.pairs[0]
		for range 2 {
			exchange(s.t, p.client, p.server)
			exchange(s.t, p.server, p.client)
		}
	}},
	// The client has forgotten, and the server's socket gives up.
	{name: "S2", play: func(s *stage) {
		s.set("net.ipv4.tcp_retries2", "1")
		p := s.enter(s.serve(9102), 1, 1, "")[0]
		s.mute()
		_, err := s.ct.DeleteMatching(s.t.Context(), &conntrack.Filter{Proto: conntrack.ProtoTCP}, nil)
		noError(s.t, err)
		_, err = io.WriteString(p.server, "late answer")
		noError(s.t, err)
	}, want: map[string]int{"Ghosts": 1}, first: "Ghosts"},
	{name: "S4", play: func(s *stage) {
		l := s.serve(443)
		for i := range 5 {
			over(s.t, s.connect(l, member(s.ipv6, i+1), 12, "GET /"))
		}
		over(s.t, s.connect(l, member(s.ipv6, 77), 40, "GET /"))
	}, want: map[string]int{"PerSource": 1}, first: "PerSource", subject: (*stage).bad, count: 40},
	// One source with many connections that do nothing.
	{name: "S5", play: func(s *stage) {
		l := s.serve(5060)
		s.enter(l, 1, 43, invite)
		s.enter(l, 77, 61, "\n")
	}, want: map[string]int{"IdleFlood": 1}, first: "IdleFlood", subject: (*stage).bad, count: 61},
	// Many, but at work: one finding.
	{name: "S5 at work", play: func(s *stage) {
		s.enter(s.serve(5060), 77, 61, invite)
	}, want: map[string]int{"PerSource": 1}, first: "PerSource", subject: (*stage).bad, count: 61},
	{name: "S6 CLOSE_WAIT", play: func(s *stage) {
		l := s.serve(9102)
		for i := range 7 {
			for _, p := range s.enter(l, i+1, 10, "GET /") {
				noError(s.t, p.client.Close())
			}
		}
	}, want: map[string]int{"Leaks": 1}, first: "Leaks", count: 70, mended: func(s *stage) {
		for _, p := range s.pairs {
			noError(s.t, p.server.Close())
		}
	}},
	{name: "S6 SYN_SENT", play: func(s *stage) {
		s.set(ctTCP+"syn_sent", "4") // its entries outlive a socket
		s.mute()
		noError(s.t, s.server.Do(func() error { return s.begin(23, 1, s.ipv6, 41) }))
	}, want: map[string]int{"OutboundScan": 1}, first: "OutboundScan", count: 41},
	{name: "S6 SYN_RECV", play: func(s *stage) {
		s.mute()
		s.serve(443)
		noError(s.t, s.client.Do(func() error {
			for i := range 66 {
				if err := forgeSYN(netip.AddrPortFrom(member(s.ipv6, i+1), 4321), netip.AddrPortFrom(s.serverAddr(), 443)); err != nil {
					return err
				}
			}
			return nil
		}))
	}, want: map[string]int{"SynFlood": 1}, first: "SynFlood", count: 66, mended: func(s *stage) {
		s.set("net.ipv4.tcp_synack_retries", "1") // with 3, as was advised, it takes 15 s
	}},
	{name: "S6 accept", play: func(s *stage) {
		s.set("net.core.somaxconn", "4")
		l := s.serve(80)
		d := net.Dialer{Timeout: crowdPatience}
		d.SetMultipathTCP(false)
		noError(s.t, s.client.Do(func() error {
			for range 5 {
				c, err := d.DialContext(s.t.Context(), "tcp", netip.AddrPortFrom(s.serverAddr(), uint16(l.Addr().(*net.TCPAddr).Port)).String())
				if err != nil {
					return err
				}
				s.t.Cleanup(func() { _ = c.Close() })
			}
			return nil
		}))
		time.Sleep(50 * time.Millisecond) // they wait for longer than Stuck: the application is to blame
	}, want: map[string]int{"AcceptQueue": 1}, first: "AcceptQueue", count: 5, mended: func(s *stage) {
		for range 5 {
			c, err := s.ports[0].Accept()
			noError(s.t, err)
			s.t.Cleanup(func() { _ = c.Close() })
		}
		s.set("net.core.somaxconn", "4096")
	}},
	// The server's firewall drops every RST: the connections stay, and the
	// tracker, which has seen the RST before the firewall, forgets them soon.
	{name: "S9", play: func(s *stage) {
		noError(s.t, s.server.Rules(s.t.Context(), nft.Table{Family: nft.INet, Name: "norst", Chains: []nft.Chain{
			{Name: "input", Hook: nft.Input, Rules: []nft.Rule{
				{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Verdict: nft.Drop},
			}},
		}}))
		for _, p := range s.enter(s.serve(80), 77, 61, "") {
			noError(s.t, p.client.(*net.TCPConn).SetLinger(0))
			noError(s.t, p.client.Close())
		}
	}, want: map[string]int{"IdleFlood": 1, "LostFlows": 61}},
	// Short connections show in no snapshot: Rate finds them by events.
	{name: "S11", play: func(s *stage) {
		found := s.rates(Rate{Limits: []RateLimit{{20, 5 * time.Minute}}})
		for _, p := range s.enter(s.serve(443), 77, 25, "") {
			noError(s.t, p.client.(*net.TCPConn).SetLinger(0))
			noError(s.t, p.client.Close())
			noError(s.t, p.server.Close())
		}
		select {
		case f := <-found:
			if f.Detector != "Rate" || f.Count != 20 || bare(f.Sources[0]) != s.bad() {
				s.t.Errorf("got %v", f)
			}
		case <-time.After(crowdPatience):
			s.t.Error("no rate")
		}
	}},
}

// Each detector finds its own scene, and none another's.
func TestLabScenes(t *testing.T) {
	t.Parallel()
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
				s := newStage(t, c, ipv6)
				s.own()
				sc.play(s)
				if sc.want == nil {
					if found, _ := s.found(); len(found) > 0 {
						t.Errorf("nothing is wrong, but: %v", found)
					}
					return
				}
				found := s.until("in the scene", sc.want, sc.first, sc.count)
				if sc.subject != nil && found[0].Subject != sc.subject(s) {
					t.Errorf("got %v", found[0])
				}
				s.mend(found, sc.mended)
			})
		})
	}
}
