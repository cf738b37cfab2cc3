package detect

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// contents is what a table is full of.
type contents struct {
	flows, assured uint64
	closing        uint64 // assured, and evicted from 95 % on
	// kinds are the entries of each TCP state, at its number, and of each
	// protocol, at 16 and its number; those of TCP there are offloaded, and
	// show no state.
	kinds    [16 + 256]kind
	services *heavy[conntrack.Service]
	sources  *heavy[source]
	// own are the networks of the host's own addresses, which nobody is told
	// to ban.
	own map[source]struct{}
}

func newContents(h *Host) *contents {
	const most = 4096
	t := &contents{services: newHeavy(most, hashService), sources: newHeavy(most, hashSource), own: make(map[source]struct{})}
	for _, a := range h.Addrs {
		t.own[sourceOf(a)] = struct{}{}
	}
	return t
}

func (t *contents) socket(s *sockdiag.Socket) {
	k := sourceOf(s.Local.Addr())
	if _, known := t.own[k]; !known {
		t.own[k] = struct{}{}
	}
}

// kind is a number of entries, and the first of them.
type kind struct {
	n      uint64
	sample *conntrack.Flow
}

func (t *contents) flow(f *conntrack.Flow) {
	t.flows++
	if assured(f) {
		t.assured++
		if shows(f, conntrack.FieldTCP) && closes(f.TCP.State) {
			t.closing++
		}
	}
	t.kinds[kindOf(f)].add(f)
	t.services.add(conntrack.Service{Proto: f.Original.Proto, Port: f.Original.DstPort})
	t.sources.add(sourceOf(f.Original.Src))
}

func (k *kind) add(f *conntrack.Flow) {
	if k.n == 0 {
		sample := *f
		k.sample = &sample
	}
	k.n++
}

// closes reports whether the garbage collector may evict an [ASSURED] entry of
// the state (tcp_can_early_drop).
func closes(s conntrack.TCPState) bool {
	switch s {
	case conntrack.TCPFinWait, conntrack.TCPCloseWait, conntrack.TCPLastAck, conntrack.TCPTimeWait, conntrack.TCPClose:
		return true
	}
	return false
}

func kindOf(f *conntrack.Flow) int {
	if shows(f, conntrack.FieldTCP) && f.TCP.State < 16 {
		return int(f.TCP.State)
	}
	return 16 + int(f.Original.Proto)
}

// String is what sentences call the entries.
func (k *kind) String() string {
	switch f := k.sample; {
	case f.Has(conntrack.FieldTCP):
		return f.TCP.State.String()
	case f.Offloaded():
		return "offloaded " + f.Original.Proto.String()
	default:
		return f.Original.Proto.String()
	}
}

// describe adds to a finding what the table is full of, and what helps against
// that.
func (t *contents) describe(f *Finding, h *Host, top int) {
	if t.flows == 0 {
		f.Evidence.Missing = append(f.Evidence.Missing, "the entries: what the table is full of")
		return
	}
	kinds := t.top(top)
	sources := t.sources.top(top, func(a, b source) int { return bytes.Compare(a[:], b[:]) })
	services := t.services.top(top, func(a, b conntrack.Service) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	f.Cause += fmt.Sprintf("; by state %s, by service %s, by source %s", t.kindShares(kinds),
		shares(services, t.flows, conntrack.Service.String),
		shares(sources, t.flows, func(k source) string { return k.prefix().String() }))
	f.Cause += fmt.Sprintf("; early drop can evict the %d (%s) that are not assured, and from 95 %% on the %d that are assured and closing go too",
		t.flows-t.assured, shareText(t.flows-t.assured, t.flows), t.closing)
	t.ban(f, sources)
	for _, k := range kinds {
		f.Evidence.Flows = append(f.Evidence.Flows, *k.sample)
		t.shorten(f, h, k)
	}
}

// top returns the kinds with the most entries, equal ones as they are numbered.
func (t *contents) top(n int) []*kind {
	var all []*kind
	for i := range t.kinds {
		if t.kinds[i].n > 0 {
			all = append(all, &t.kinds[i])
		}
	}
	slices.SortStableFunc(all, func(a, b *kind) int { return cmp.Compare(b.n, a.n) })
	return all[:min(n, len(all))]
}

func (t *contents) kindShares(kinds []*kind) string {
	var words []string
	for _, k := range kinds {
		words = append(words, fmt.Sprintf("%v %s", k, shareText(k.n, t.flows)))
	}
	return strings.Join(words, ", ")
}

// shares writes keys with their share of all.
func shares[K comparable](top []counted[K], all uint64, name func(K) string) string {
	var words []string
	for _, c := range top {
		words = append(words, fmt.Sprintf("%s %s", name(c.key), shareText(c.n, all)))
	}
	return strings.Join(words, ", ")
}

// ban names the sources that have a tenth of the table or more, and are not the
// host itself or its neighbours on the link.
func (t *contents) ban(f *Finding, sources []counted[source]) {
	for _, s := range sources {
		p := s.key.prefix()
		_, own := t.own[s.key]
		if s.n*10 < t.flows || own || p.Addr().IsLoopback() || p.Contains(netip.IPv6Loopback()) || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		f.Sources = append(f.Sources, p)
		f.Fix = append(f.Fix, fmt.Sprintf("if nobody needs the %d entries from %v: ban it, then `%s`", s.n, p, deleteFrom(p)))
	}
}

// deleteFrom is the command that deletes the entries from a source.
func deleteFrom(p netip.Prefix) string {
	if p.Addr().Is4() {
		return fmt.Sprintf("conntrack -D -f ipv4 -s %v", p.Addr())
	}
	return fmt.Sprintf("conntrack -D -f ipv6 -s %v", p)
}

// shorter are timeouts that are enough, in seconds, for states that fill
// tables. Those of CLOSE_WAIT and LAST_ACK are not among them: short ones lose
// connections and make ghosts.
var shorter = map[conntrack.TCPState]struct {
	seconds int64
	keep    string // what the new value must be longer than
}{
	conntrack.TCPSynSent:     {30, ""},
	conntrack.TCPSynRecv:     {30, ""},
	conntrack.TCPEstablished: {7200, ", if no connection is idle for longer, or keep-alives come more often"},
	conntrack.TCPFinWait:     {30, ", if peers close within that time"},
	conntrack.TCPTimeWait:    {30, ""},
}

// shorten names the timeout of a state that has a fifth of the table or more.
func (t *contents) shorten(f *Finding, h *Host, k *kind) {
	state := k.sample.TCP.State
	to, ok := shorter[state]
	if !ok || !k.sample.Has(conntrack.FieldTCP) || k.n*5 < t.flows {
		return
	}
	set, known := timeoutSetting(h.Settings, state)
	if known {
		f.Evidence.Settings = append(f.Evidence.Settings, set)
		if h.Settings.Timeouts.TCP(state).Seconds() <= float64(to.seconds) {
			return
		}
	}
	f.Fix = append(f.Fix, fmt.Sprintf("keep %v entries for a shorter time: `sysctl -w %s=%d`%s", state, timeoutName(state), to.seconds, to.keep))
}
