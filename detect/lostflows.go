package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// LostFlows finds connections whose sockets live while the tracker has no entry
// for them, or will have none soon.
//
// Without an entry the peer's next packet is of no known connection, and a
// firewall that accepts only established ones refuses it: the local process
// never learns. What the local side sends next may be picked up as a new entry
// (tcp_loose), which becomes a ghost if the peer has forgotten the connection:
// see Ghosts. An entry is running out if the socket's keep-alive comes later
// than its end, or if nothing is due to be sent and half of its time, and all
// but an hour, is gone.
//
// Connections of a host whose table is empty are found too, with less
// confidence: tracking may be off there. So are those of a host to itself:
// most firewalls let everything pass on lo.
//
// A pass keeps at most 140 bytes for each such socket, of which the evidence
// tells what identifies it, owner and queues, but no tcp_info; the entries that
// are running out; and Most findings. Rows of text without timers (ss -o,
// netstat -o) do not tell which entries run out.
type LostFlows struct {
	// Most is how many are told one by one; 0 is 1000. One more finding counts
	// those beyond.
	Most int
}

// Name returns "LostFlows".
func (LostFlows) Name() string { return "LostFlows" }

// Look begins a pass.
func (l LostFlows) Look(h *Host) Look {
	p := &lostPass{host: h, carriers: newConnections[carrier](), ending: make(map[*carrier]conntrack.Flow), list: list{most: l.Most}}
	return Look{Socket: p.socket, Flow: p.flow, Findings: p.findings}
}

// lostPass has the connections that carry data, by what their sockets send. A
// flow has its place by either of its tuples: by both when it is a connection
// of the host to itself.
type lostPass struct {
	host     *Host
	own      ownAddrs // of the sockets: what comes from no such address is not looked up
	carriers connections[carrier]
	ending   map[*carrier]conntrack.Flow
	flows    int
	list     list
}

func (p *lostPass) socket(s *sockdiag.Socket) {
	if !isTCP(s) || !carries(s.State) {
		return
	}
	key := socketEnds(s)
	if c := p.carriers.of(key); c.state == 0 { // the first that is told of it
		p.own.add(s.Local.Addr())
		*c = carry(key, s)
	}
}

func (p *lostPass) flow(f *conntrack.Flow) {
	p.flows++
	if f.Original.Proto != conntrack.ProtoTCP {
		return
	}
	p.entry(&f.Original, f)
	p.entry(&f.Reply, f)
}

// entry notes the flow for the socket that sends the tuple, if there is one.
func (p *lostPass) entry(t *conntrack.Tuple, f *conntrack.Flow) {
	if !p.own.has(t.Src) {
		return
	}
	c := p.carriers.get(tupleEnds(t))
	if c == nil {
		return
	}
	if c.tracked {
		delete(p.ending, c)
	}
	c.tracked = true
	if p.host.runsOut(c, f) {
		p.ending[c] = *f
	}
}

func (p *lostPass) findings() []Finding {
	for _, c := range p.carriers.all() {
		f, ends := p.ending[c]
		switch {
		case c.tracked && !ends || !p.list.room():
		case !c.tracked:
			p.list.found = append(p.list.found, p.host.lost(c, p.flows == 0))
		default:
			p.list.found = append(p.list.found, p.host.endingSoon(c, &f))
		}
	}
	return p.list.told("LostFlows", "connections without an entry, or soon without")
}

// carries reports whether a socket in the state can still send or receive
// data.
func carries(s sockdiag.State) bool {
	switch s {
	case sockdiag.Established, sockdiag.CloseWait, sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.LastAck:
		return true
	}
	return false
}

func (h *Host) lost(c *carrier, empty bool) Finding {
	f := Finding{
		Detector: "LostFlows", Severity: Critical, Confidence: Likely,
		Subject:  connection(c.tuple()),
		Evidence: Evidence{Sockets: []sockdiag.Socket{c.socket()}},
	}
	f.Cause = fmt.Sprintf("the socket is %v, but its conntrack entry is gone: "+
		"a packet from the peer is of no known connection", c.state)
	if set, ok := timeoutSetting(h.Settings, trackerState(c.state)); ok {
		f.Evidence.Settings = append(f.Evidence.Settings, set)
		f.Cause += ", and " + set.String()
		if c.idle >= 0 && c.idle >= h.Settings.Timeouts.TCP(trackerState(c.state)) {
			f.Cause += fmt.Sprintf(", which the connection has been idle for (%s)", seconds(c.idle))
		}
	} else {
		f.Evidence.Missing = append(f.Evidence.Missing, "the tracker's settings")
	}
	f.Fix = h.lostFix(c.state)
	if empty {
		f.doubt("the table is empty: tracking may be off here (it is on where a rule uses ct state or NAT)")
	}
	if t := c.tuple(); t.Dst.IsLoopback() || t.Dst == t.Src {
		f.doubt("whether a rule refuses anything on lo, which this connection does not leave")
	}
	return f
}

// doubt lowers severity and confidence for want of a fact.
func (f *Finding) doubt(missing string) {
	f.Severity, f.Confidence = Warning, Possible
	f.Evidence.Missing = append(f.Evidence.Missing, missing)
}

// trackerState is the state of the entry of a socket in the given state, as
// this host's own packets make it.
func trackerState(s sockdiag.State) conntrack.TCPState {
	switch s {
	case sockdiag.CloseWait, sockdiag.FinWait2: // either end's FIN is acknowledged
		return conntrack.TCPCloseWait
	case sockdiag.FinWait1, sockdiag.LastAck: // a FIN sent again counts as that of the other end
		return conntrack.TCPLastAck
	}
	return conntrack.TCPEstablished
}

// idleTime is how long the connection carried nothing, if tcp_info was asked
// for.
func idleTime(s *sockdiag.Socket) (time.Duration, bool) {
	if !tells(s, sockdiag.FieldInfo) {
		return 0, false
	}
	return min(s.Info.LastDataSent, s.Info.LastDataRecv, s.Info.LastAckRecv), true
}

func (h *Host) lostFix(s sockdiag.State) []string {
	switch state := trackerState(s); s {
	case sockdiag.CloseWait:
		return []string{
			"close the socket when the peer has closed (end of file)",
			"keep the entry longer than the longest request: " + h.longer(state),
		}
	case sockdiag.Established:
		return []string{
			"keep the entry longer than the connection is ever idle: " + h.longer(state),
			"send keep-alives more often than it ends, by SO_KEEPALIVE of the application, and on new connections " + h.sooner(state),
		}
	default: // this side has closed
		return []string{"keep the entry until the peer has closed too: " + h.longer(state)}
	}
}

// longer is the command that has the tracker keep a state for longer: for five
// days, the kernel's own choice, if it is ESTABLISHED, else for 15 minutes, the
// incidents' longest request; and at least twice as long as now.
func (h *Host) longer(state conntrack.TCPState) string {
	want := 15 * time.Minute
	if state == conntrack.TCPEstablished {
		want = 5 * 24 * time.Hour
	}
	if _, known := timeoutSetting(h.Settings, state); known {
		want = max(want, 2*h.Settings.Timeouts.TCP(state))
	}
	return set(timeoutName(state), secs(want))
}

// sooner is the command that has keep-alives come before the tracker's timeout.
func (h *Host) sooner(state conntrack.TCPState) string {
	idle := uint64(1200)
	if _, known := timeoutSetting(h.Settings, state); known {
		idle = max(min(idle, secs(h.Settings.Timeouts.TCP(state))/2), 1)
	}
	return set(keepaliveTime, idle)
}

// runsOut reports whether the entry will end before the connection is due to
// renew it, which only its timer tells. That of a socket in FIN_WAIT2 that no
// process has renews nothing: it ends the socket.
func (h *Host) runsOut(c *carrier, f *conntrack.Flow) bool {
	if !shows(f, conntrack.FieldTimeout) || offloaded(f) || c.fields&sockdiag.UnknownTimer != 0 {
		return false
	}
	switch c.timer {
	case sockdiag.TimerKeepalive:
		return c.expires > f.Timeout && (c.state != sockdiag.FinWait2 || c.inode != 0)
	case sockdiag.TimerOff:
		whole := h.Settings.Timeouts.TCP(f.TCP.State)
		return f.Timeout <= min(whole/2, time.Hour)
	}
	return false // something is about to be sent
}

func (h *Host) endingSoon(c *carrier, f *conntrack.Flow) Finding {
	finding := Finding{
		Detector: "LostFlows", Severity: Warning, Confidence: Likely,
		Subject: connection(c.tuple()),
		Fix:     h.lostFix(c.state),
		Evidence: Evidence{
			Sockets: []sockdiag.Socket{c.socket()}, Flows: []conntrack.Flow{*f},
		},
	}
	if !h.Now.IsZero() {
		finding.Until = h.Now.Add(f.Timeout)
	}
	finding.Cause = fmt.Sprintf("the socket is %v, and its conntrack entry ends in %s", c.state, seconds(f.Timeout))
	if c.timer == sockdiag.TimerKeepalive {
		finding.Cause += fmt.Sprintf(", before the next keep-alive in %s", seconds(c.expires))
	} else {
		finding.Confidence = Possible // the application may send in time
		finding.Cause += " unless something is sent; no keep-alive is due"
	}
	if set, ok := timeoutSetting(h.Settings, f.TCP.State); ok {
		finding.Evidence.Settings = []Setting{set}
	}
	return finding
}
