package detect

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// Pressure finds a connection tracking table that is getting full, and packets
// it dropped. Host.Usage tells how full it is, and against Host.Earlier how fast
// it fills; the flows tell of what; Host.Stats against Host.Earlier tells what
// was dropped between the two looks. Without an earlier look the drops are those
// since the namespace was made, which may be long ago: Info at most.
//
// It keeps a counter for each state and service among the flows, of which it
// counts 65536 services at most.
type Pressure struct {
	// Warn and Full are the shares of nf_conntrack_max from which the table is
	// a warning and critical; 0 is 0.8 and 0.95.
	Warn, Full float64
}

// Name returns "Pressure".
func (Pressure) Name() string { return "Pressure" }

// Look counts what the table is full of.
func (d Pressure) Look(h *Host) Look {
	p := &pressed{Pressure: d, host: h, states: make(map[flowState]uint64), services: make(map[flowService]uint64)}
	return Look{Flow: p.flow, Findings: p.findings}
}

type flowState struct {
	proto conntrack.Proto
	state conntrack.TCPState
}

func (s flowState) String() string {
	if s.proto == conntrack.ProtoTCP {
		return s.state.String()
	}
	return s.proto.String()
}

type flowService struct {
	proto conntrack.Proto
	port  uint16
}

func (s flowService) String() string { return fmt.Sprintf("%v port %d", s.proto, s.port) }

const maxServices = 1 << 16

type pressed struct {
	Pressure
	host     *Host
	flows    uint64
	kept     uint64 // assured, which early drop spares
	states   map[flowState]uint64
	services map[flowService]uint64
}

func (p *pressed) flow(f *conntrack.Flow) {
	p.flows++
	if f.Assured() {
		p.kept++
	}
	p.states[flowState{f.Original.Proto, f.TCP.State}]++
	service := flowService{f.Original.Proto, f.Original.DstPort}
	if _, known := p.services[service]; known || len(p.services) < maxServices {
		p.services[service]++
	}
}

func (p *pressed) findings() []Finding {
	found := p.drops()
	share, limited := p.host.Usage.Share()
	if limited && share >= cmp.Or(p.Warn, 0.8) {
		found = append(found, p.fill(share))
	}
	return found
}

// fill tells how full the table is.
func (p *pressed) fill(share float64) Finding {
	u := p.host.Usage
	f := Finding{
		Detector: "Pressure", Severity: Warning, Confidence: Certain, Subject: "the connection tracking table",
		Count: u.Count, Limit: u.Max,
	}
	if share >= cmp.Or(p.Full, 0.95) {
		f.Severity = Critical
	}
	entries, _ := u.Memory()
	f.Cause = fmt.Sprintf("it holds %v, about %d MiB; when it is full, the packet of every new connection is dropped", u, entries>>20)
	if left, ok := p.timeLeft(); ok {
		f.Cause += fmt.Sprintf("; at the present rate that is in %v", left.Round(time.Second))
		if !p.host.Now.IsZero() {
			f.Until = p.host.Now.Add(left)
		}
	}
	f.Cause += p.contents()
	if p.flows == 0 {
		f.Evidence.Missing = append(f.Evidence.Missing, "the flows: what it is full of")
	}
	f.Evidence.Settings = []Setting{{"net.netfilter.nf_conntrack_max", fmt.Sprint(u.Max)}}
	f.Fix = append(p.shorten(), fmt.Sprintf("make room, at %d bytes an entry, which only delays it if one source fills the table: "+
		"`sysctl -w net.netfilter.nf_conntrack_max=%d`", max(entries/max(u.Count, 1), 1), 2*u.Max))
	return f
}

// timeLeft is until the table is full, if it was looked at earlier and has
// grown since.
func (p *pressed) timeLeft() (time.Duration, bool) {
	now, before := p.host.Usage, p.host.Earlier.Usage
	passed := p.host.Now.Sub(p.host.Earlier.At)
	if before == (conntrack.Usage{}) || passed <= 0 || now.Count <= before.Count || now.Count > now.Max {
		return 0, false
	}
	rate := float64(now.Count-before.Count) / passed.Seconds()
	seconds := float64(now.Max-now.Count) / rate
	const most = 365 * 24 * time.Hour
	if seconds > most.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// contents says what the flows are.
func (p *pressed) contents() string {
	if p.flows == 0 {
		return ""
	}
	return fmt.Sprintf("; of %d flows %s; by service %s; %d are not assured, and go first when it is full",
		p.flows, most(p.states, 3), most(p.services, 3), p.flows-p.kept)
}

// most lists the keys with the highest counts.
func most[K interface {
	comparable
	fmt.Stringer
}](counts map[K]uint64, n int) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b K) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a.String(), b.String()))
	})
	var words []string
	for _, k := range keys[:min(n, len(keys))] {
		words = append(words, fmt.Sprintf("%d are %v", counts[k], k))
	}
	return strings.Join(words, ", ")
}

// shorten is the advice to keep entries of the states that fill the table for
// less time: of those that a shorter time harms least.
func (p *pressed) shorten() []string {
	var fixes []string
	for _, s := range []struct {
		state   conntrack.TCPState
		seconds int
	}{{conntrack.TCPTimeWait, 30}, {conntrack.TCPCloseWait, 30}, {conntrack.TCPFinWait, 30}, {conntrack.TCPSynRecv, 20}, {conntrack.TCPSynSent, 20}} {
		n := p.states[flowState{conntrack.ProtoTCP, s.state}]
		timeout := p.host.Settings.Timeouts.TCP(s.state)
		if 4*n >= p.flows && n > 0 && timeout > time.Duration(s.seconds)*time.Second {
			fixes = append(fixes, fmt.Sprintf("keep entries in %v for less than %s: `sysctl -w %s=%d`",
				s.state, seconds(timeout), timeoutName(s.state), s.seconds))
		}
	}
	return append(fixes, "find who fills it: PerSource")
}

// drops tells of counters that say that packets were lost.
func (p *pressed) drops() []Finding {
	if len(p.host.Stats) == 0 {
		return nil
	}
	now := conntrack.Total(p.host.Stats)
	recent := len(p.host.Earlier.Stats) > 0
	if recent {
		now = now.Sub(conntrack.Total(p.host.Earlier.Stats))
	}
	var found []Finding
	for _, c := range lossCounters {
		if n := c.of(now); n > 0 {
			found = append(found, p.loss(c, n, recent))
		}
	}
	return found
}

// lossCounter is a counter of Stats that says that connections suffered.
type lossCounter struct {
	word     string
	of       func(conntrack.Stats) uint64
	severity Severity // when it was counted between two looks
	cause    string
	fix      string
}

var lossCounters = []lossCounter{
	{"early_drop", func(s conntrack.Stats) uint64 { return s.EarlyDrop }, Critical,
		"entries that were not assured were dropped to make room, for the table was full: connections in their handshake, and UDP, were lost",
		"make room: raise `net.netfilter.nf_conntrack_max`, once it is known who fills the table (PerSource)"},
	{"insert_failed", func(s conntrack.Stats) uint64 { return s.InsertFailed }, Warning,
		"new entries could not be put into the table and their packets were dropped: two connections got the same port by source NAT, " +
			"or one client sent twice from one port (two DNS queries at once)",
		"have source NAT choose ports at random: `masquerade random-fully` in nftables, `--random-fully` in iptables; or give it more addresses"},
	{"chaintoolong", func(s conntrack.Stats) uint64 { return s.ChainTooLong }, Warning,
		"new entries were refused because their hash chain was too long: there are too few buckets for the table, or somebody aims at one",
		"give each two entries a bucket: `sysctl -w net.netfilter.nf_conntrack_buckets=N`, in the initial namespace"},
	{"drop", func(s conntrack.Stats) uint64 { return s.Drop - min(s.Drop, s.InsertFailed) }, Critical,
		"packets were dropped for want of an entry: the table was full, or there was no memory (\"nf_conntrack: table full, dropping packet\")",
		"make room: raise `net.netfilter.nf_conntrack_max`, once it is known who fills the table (PerSource)"},
}

func (p *pressed) loss(c lossCounter, n uint64, recent bool) Finding {
	f := Finding{
		Detector: "Pressure", Severity: c.severity, Confidence: Certain, Subject: "the tracker's counter " + c.word,
		Count: n, Cause: fmt.Sprintf("%s = %d: %s", c.word, n, c.cause), Fix: []string{c.fix},
	}
	if recent {
		f.Since = p.host.Earlier.At
		return f
	}
	f.Severity, f.Confidence = Info, Possible
	f.Evidence.Missing = []string{"an earlier look: whether it still happens"}
	return f
}
