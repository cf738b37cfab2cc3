package detect

import (
	"fmt"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// PerSource finds sources that hold many connections in one state. Sockets are
// counted, and of the flows those that this host only forwards; all incoming
// flows if it was given no sockets. So no connection is counted twice.
//
// What this host opened itself does not count, nor what it has with itself. A
// connection is incoming if its port listens: have LISTEN among the rows. When
// no listener is seen, the lower of the two ports is taken for the service's.
// Forwarded flows whose source is translated are those of clients behind this
// host and do not count; clients behind it without translation belong in Allow.
//
// It keeps one counter for each source, port and state.
type PerSource struct {
	Sources
	// State is which state to count; 0 is all but LISTEN, CLOSE and SYN_SENT,
	// each on its own.
	State sockdiag.State
	// Limit is how many connections in a state are normal for a source. 0 is
	// 39 in TIME_WAIT, 20 in SYN_RECV and 60 in others.
	Limit uint64
}

// Name returns "PerSource".
func (PerSource) Name() string { return "PerSource" }

// limit is that of a state.
func (d *PerSource) limit(state uint8) uint64 {
	if d.Limit > 0 {
		return d.Limit
	}
	switch sockdiag.State(state) {
	case sockdiag.TimeWait:
		return 39
	case sockdiag.SynRecv:
		return 20
	}
	return 60
}

// Look begins a pass.
func (d PerSource) Look(h *Host) Look {
	g := d.gather(h, d.limit)
	return Look{
		Socket: func(s *sockdiag.Socket) {
			g.see(s)
			if state := halfOpen(s.State); d.counts(state) {
				g.socket(s, uint8(state))
			}
		},
		Flow: func(f *conntrack.Flow) {
			if state, ok := socketState(f); ok && d.counts(state) && g.forwarded(f) {
				g.flow(f, uint8(state))
			}
		},
		Findings: func() []Finding { return d.findings(g) },
	}
}

// counts reports whether connections in a state count.
func (d *PerSource) counts(s sockdiag.State) bool {
	switch s {
	case sockdiag.Listen, sockdiag.Close, sockdiag.SynSent, sockdiag.BoundInactive:
		return false
	}
	return d.State == 0 || s == halfOpen(d.State)
}

// halfOpen returns the one name of the two that half-open connections have.
func halfOpen(s sockdiag.State) sockdiag.State {
	if s == sockdiag.NewSynRecv {
		return sockdiag.SynRecv
	}
	return s
}

// socketState is the state of the service's socket as far as the flow tells.
func socketState(f *conntrack.Flow) (sockdiag.State, bool) {
	if unreplied(f) {
		return 0, false
	}
	switch f.TCP.State {
	case conntrack.TCPSynRecv:
		return sockdiag.SynRecv, true
	case conntrack.TCPEstablished:
		return sockdiag.Established, true
	case conntrack.TCPFinWait:
		return sockdiag.FinWait1, true
	case conntrack.TCPCloseWait:
		return sockdiag.CloseWait, true
	case conntrack.TCPLastAck:
		return sockdiag.LastAck, true
	case conntrack.TCPTimeWait:
		return sockdiag.TimeWait, true
	}
	return 0, false
}

func (d *PerSource) findings(g *gathering) []Finding {
	g.counts.crowd(func(state uint8) uint64 { return d.limit(state) / 2 })
	var found []Finding
	for state := sockdiag.Established; state <= sockdiag.Closing; state++ {
		of := func(k sourceKey) bool { return k.of() == uint8(state) && g.incoming(k) }
		if g.kinds>>state&1 == 0 {
			continue
		}
		limit := d.limit(uint8(state))
		for _, l := range g.offenders(of, limit) {
			f := d.finding(g, state, &l)
			f.Limit, f.Evidence.Sockets = limit, g.evidence(&l, of)
			if state != sockdiag.Established { // these may have begun long before
				f.Since = g.host.begun(f.Evidence.Sockets)
			}
			found = append(found, f)
		}
	}
	return found
}

func (d *PerSource) finding(g *gathering, state sockdiag.State, l *load) Finding {
	f := g.offence("PerSource", l)
	f.Cause = fmt.Sprintf("%s holds %d connections in %v, %s", g.who(l), l.count, state, g.where(l))
	f.Cause += stateMeans[state]
	f.Fix = append([]string{banFix(f.Sources[0])}, stateFix[state]...)
	if state == sockdiag.CloseWait {
		f.Confidence = Possible
		f.Fix = slices.Clone(stateFix[state]) // a ban does not close them
	}
	if r, ok := stateRemedies[state]; ok && g.passing(l.here) {
		f.Fix = append(f.Fix, onServer)
	} else if ok {
		g.host.remedy(&f, r.why, r.setting)
	}
	return f
}

var stateMeans = map[sockdiag.State]string{
	sockdiag.TimeWait:    ": this side closed first, and each keeps an entry of the tracker for two minutes",
	sockdiag.Established: ": each takes a file descriptor, until a keep-alive finds that the peer is gone",
	sockdiag.SynRecv:     ": it does not end its handshakes",
	sockdiag.CloseWait:   ": the peer has closed and the local application has not",
	sockdiag.FinWait1:    ": the peer does not acknowledge the end, and each keeps what was not sent",
	sockdiag.LastAck:     ": it closed first and vanished",
}

var stateFix = map[sockdiag.State][]string{
	sockdiag.TimeWait: {"let fail2ban count them: maxretry = 40, findtime = 750, bantime = -1"},
	sockdiag.Established: {
		"find dead peers: SO_KEEPALIVE set by the application",
		"put a source that may do this into Allow",
	},
	sockdiag.CloseWait: {"have the application close at end of file", "see which it is: `ss -tnp state close-wait`"},
}

var stateRemedies = map[sockdiag.State]remedy{
	sockdiag.Established: {"find dead peers sooner, on new connections", keepaliveTime},
	sockdiag.SynRecv:     {"let clients in meanwhile", syncookies},
	sockdiag.LastAck:     {"give up sooner on peers that answer nothing", orphanRetries},
	sockdiag.FinWait1:    {"give up sooner on peers that answer nothing", orphanRetries},
	sockdiag.FinWait2:    {"end sooner what is closed from now on", finTimeout},
}

// offence is a finding about a source, without what it did.
func (g *gathering) offence(detector string, l *load) Finding {
	p := g.name(l)
	f := Finding{Detector: detector, Severity: Warning, Confidence: Likely, Subject: bare(p), Count: l.count}
	f.Sources = append(f.Sources, p)
	g.doubts(&f, l)
	return f
}

// doubts notes what is not known about an offender.
func (g *gathering) doubts(f *Finding, l *load) {
	if l.sources > 0 && l.over == 0 {
		f.doubt("whether the network is one party: none of its sources is over the limit")
	}
	if l.sources == 0 && g.holdsAllowed(f.Sources[0]) {
		f.doubt("who else is in the prefix: it holds an allowed address, which a ban would hit")
	}
	if !g.sockets {
		f.doubt("sockets: who is inside and who outside is guessed")
	} else if len(g.listening) == 0 && len(g.Ports) == 0 {
		f.doubt("listening sockets: which connections came in is guessed by their ports")
	}
}

// who names an offender.
func (g *gathering) who(l *load) string {
	p := bare(g.name(l))
	if l.sources > 0 {
		return fmt.Sprintf("%s, by %d sources that have their part in it,", p, l.sources)
	}
	return p
}

// where names the ports of an offender.
func (g *gathering) where(l *load) string {
	if l.ports > 1 {
		return fmt.Sprintf("%d of them on port %d", l.most, l.port)
	}
	return fmt.Sprintf("on port %d", l.port)
}
