package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// IdleFlood finds sources that hold many connections and do nothing with them:
// each ESTABLISHED, having brought next to no data, and silent since. It takes
// a file descriptor of the service, until a keep-alive finds the peer gone: two
// hours later by default, and never where the application did not ask for
// keep-alives.
//
// What was received and how long ago is told by tcp_info: sockdiag.Query.Info.
// Rows without it cannot be told from busy ones, and make a finding that says
// so. Which connections are incoming is decided as PerSource does, and of what both
// find of one source in ESTABLISHED, Find and Scan return the surer finding, or else
// this detector's.
type IdleFlood struct {
	Sources
	// Limit is how many idle connections are normal for a source; 0 is 60.
	Limit uint64
	// Tiny is how many bytes received still are nothing; 0 is 64.
	Tiny uint64
	// Silence is for how long a connection must have carried no data in either
	// direction; 0 is 60 s.
	Silence time.Duration
}

// The kinds of connections to IdleFlood.
const (
	working     uint8 = iota
	idleAlive         // keep-alives are on
	idleForever       // no timer runs
	idleUntimed       // whether one runs is not known
	unsure            // without tcp_info, nothing queued
)

// Name returns "IdleFlood".
func (IdleFlood) Name() string { return "IdleFlood" }

// Look begins a pass.
func (d IdleFlood) Look(h *Host) Look {
	g := d.gather(h, func(uint8) uint64 { return d.limit() })
	return Look{
		Socket: func(s *sockdiag.Socket) {
			g.see(s)
			if s.State == sockdiag.Established {
				g.socket(s, d.kind(s))
			}
		},
		Findings: func() []Finding { return d.findings(g) },
	}
}

func (d *IdleFlood) limit() uint64          { return cmp.Or(d.Limit, 60) }
func (d *IdleFlood) tiny() uint64           { return cmp.Or(d.Tiny, 64) }
func (d *IdleFlood) silence() time.Duration { return cmp.Or(d.Silence, time.Minute) }

func (d *IdleFlood) kind(s *sockdiag.Socket) uint8 {
	pending := s.RecvQueue > uint32(min(d.tiny(), 1<<31)) || s.SendQueue > 0
	switch {
	case pending || s.Timer != sockdiag.TimerOff && s.Timer != sockdiag.TimerKeepalive:
		return working
	case !tells(s, sockdiag.FieldInfo) || !s.Info.Has(sockdiag.InfoBase|sockdiag.InfoBytes):
		return unsure
	case s.Info.BytesReceived > d.tiny() || min(s.Info.LastDataSent, s.Info.LastDataRecv) < d.silence():
		return working
	case s.Timer == sockdiag.TimerKeepalive:
		return idleAlive
	case tells(s, sockdiag.UnknownTimer):
		return idleUntimed
	}
	return idleForever
}

func (d *IdleFlood) findings(g *gathering) []Finding {
	is := func(kinds ...uint8) func(sourceKey) bool {
		return func(k sourceKey) bool { return slices.Contains(kinds, k.of()) && g.incoming(k) }
	}
	// Those that are unsure decide too, so that a half-told flood is one.
	maybe := is(idleAlive, idleForever, idleUntimed, unsure)
	offenders := g.offenders(maybe, d.limit())
	if len(offenders) == 0 {
		return nil
	}
	alive, forever, untimed, all := g.totals(is(idleAlive)), g.totals(is(idleForever)), g.totals(is(idleUntimed)), g.totals(g.incoming)
	var found []Finding
	for _, l := range offenders {
		f := d.finding(g, &l, idleness{d.sum(alive, &l), d.sum(forever, &l), d.sum(untimed, &l), d.sum(all, &l)})
		f.Evidence.Sockets = g.evidence(&l, maybe)
		f.Since = g.host.begun(f.Evidence.Sockets)
		found = append(found, f)
	}
	return found
}

// sum is what an offender has of the totals.
func (o *Sources) sum(totals map[source]uint64, of *load) (n uint64) {
	if of.sources == 0 {
		return totals[of.source]
	}
	for s, count := range totals {
		if o.wide(s) == of.source {
			n += count
		}
	}
	return n
}

// idleness is how many connections an offender has of each kind, and in all.
type idleness struct{ alive, forever, untimed, all uint64 }

func (d *IdleFlood) finding(g *gathering, l *load, n idleness) Finding {
	f := g.offence("IdleFlood", l)
	f.Limit = d.limit()
	f.Fix = []string{
		banFix(f.Sources[0]),
		"have the application close connections that bring no request: a read timeout of seconds",
		"find dead peers: SO_KEEPALIVE set by the application",
		"put a source that may do this, such as a pool of connections, into Allow",
	}
	g.host.remedy(&f, "find dead peers sooner, on new connections", keepaliveTime)
	idle := n.alive + n.forever + n.untimed
	if idle <= d.limit() {
		f.Cause = fmt.Sprintf("%s holds %d connections %s that may be idle, of %d", g.who(l), l.count, g.where(l), n.all)
		f.doubt("tcp_info (ss -i): what was received, and how long ago")
		return f
	}
	f.Count = idle
	f.Cause = fmt.Sprintf("%s holds %d idle connections, %s, of %d that it has: at most %d bytes received from each, and nothing for %s",
		g.who(l), idle, g.where(l), n.all, d.tiny(), d.silence())
	if n.untimed > 0 {
		f.Evidence.Missing = append(f.Evidence.Missing, "the timers of the connections: whether keep-alives are on")
	} else {
		f.Cause += fmt.Sprintf("; on %d of them no keep-alive will ever find the peer gone", n.forever)
	}
	return f
}

// once leaves one of two findings that are of the same connections: that of PerSource
// counts those that a source has in ESTABLISHED, that of IdleFlood too, and says that
// they carry nothing. The surer one stays, and of equals the one that says more.
func once(found []Finding) []Finding {
	idle := make(map[string]Confidence) // by subject
	for i := range found {
		if f := &found[i]; f.Detector == (IdleFlood{}).Name() {
			idle[f.Subject] = max(idle[f.Subject], f.Confidence)
		}
	}
	if len(idle) == 0 {
		return found
	}
	held := make(map[string]Confidence)
	for i := range found {
		if f := &found[i]; countsEstablished(f) {
			held[f.Subject] = max(held[f.Subject], f.Confidence)
		}
	}
	return slices.DeleteFunc(found, func(f Finding) bool {
		if countsEstablished(&f) {
			return idle[f.Subject] >= f.Confidence
		}
		return f.Detector == (IdleFlood{}).Name() && held[f.Subject] > f.Confidence
	})
}

func countsEstablished(f *Finding) bool {
	of := f.Evidence.Sockets
	return f.Detector == (PerSource{}).Name() && len(of) > 0 && of[0].State == sockdiag.Established
}
