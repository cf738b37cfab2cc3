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
func LostFlows(h Host) []Finding {
	entries := h.entries()
	var found []Finding
	for i := range h.Sockets {
		s := &h.Sockets[i]
		if !carries(s.State) {
			continue
		}
		f := entries[SocketTuple(s)]
		switch {
		case f == nil:
			found = append(found, h.lost(s))
		case h.runsOut(s, f):
			found = append(found, h.ending(s, f))
		}
	}
	return found
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

// entries returns the entries of the connections that carry data, by the tuple
// of what their sockets send; nil is none. A flow has its place by either of
// its tuples: by both when it is a connection of the host to itself.
func (h *Host) entries() map[conntrack.Tuple]*conntrack.Flow {
	entries := make(map[conntrack.Tuple]*conntrack.Flow, len(h.Sockets))
	for i := range h.Sockets {
		if s := &h.Sockets[i]; carries(s.State) {
			entries[SocketTuple(s)] = nil
		}
	}
	if len(entries) == 0 {
		return nil
	}
	for i := range h.Flows {
		f := &h.Flows[i]
		if _, asked := entries[f.Original]; asked {
			entries[f.Original] = f
		}
		if _, asked := entries[f.Reply]; asked {
			entries[f.Reply] = f
		}
	}
	return entries
}

func (h *Host) lost(s *sockdiag.Socket) Finding {
	f := Finding{
		Detector: "LostFlows", Severity: Critical, Confidence: Likely,
		Subject:  connection(SocketTuple(s)),
		Evidence: Evidence{Sockets: []sockdiag.Socket{*s}},
	}
	f.Cause = fmt.Sprintf("the socket is %v, but its conntrack entry is gone: "+
		"a packet from the peer is of no known connection", s.State)
	if set, ok := timeoutSetting(h.Settings, trackerState(s.State)); ok {
		f.Evidence.Settings = append(f.Evidence.Settings, set)
		f.Cause += ", and " + set.String()
		if idle, ok := idleTime(s); ok && idle >= h.Settings.Timeouts.TCP(trackerState(s.State)) {
			f.Cause += fmt.Sprintf(", which the connection has been idle for (%s)", seconds(idle))
		}
	} else {
		f.Evidence.Missing = append(f.Evidence.Missing, "the tracker's settings")
	}
	f.Fix = lostFix(s.State)
	if len(h.Flows) == 0 {
		f.doubt("the table is empty: tracking may be off here (it is on where a rule uses ct state or NAT)")
	}
	if s.Remote.Addr().IsLoopback() || s.Remote.Addr() == s.Local.Addr() {
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
	case sockdiag.CloseWait:
		return conntrack.TCPCloseWait
	case sockdiag.FinWait1, sockdiag.FinWait2:
		return conntrack.TCPFinWait
	case sockdiag.LastAck:
		return conntrack.TCPLastAck
	}
	return conntrack.TCPEstablished
}

// idleTime is how long the connection carried nothing, if tcp_info was asked
// for.
func idleTime(s *sockdiag.Socket) (time.Duration, bool) {
	if !s.Has(sockdiag.FieldInfo) {
		return 0, false
	}
	return min(s.Info.LastDataSent, s.Info.LastDataRecv, s.Info.LastAckRecv), true
}

func lostFix(s sockdiag.State) []string {
	switch state := trackerState(s); state {
	case conntrack.TCPCloseWait:
		return []string{
			"close the socket when the peer has closed (end of file)",
			"keep the entry longer than the longest request: raise `" + timeoutName(state) + "`",
		}
	case conntrack.TCPEstablished:
		return []string{
			"keep the entry longer than the connection is ever idle: raise `" + timeoutName(state) + "`",
			"send keep-alives more often than that: `net.ipv4.tcp_keepalive_time`, and SO_KEEPALIVE set by the application",
		}
	default: // this side has closed
		return []string{"keep the entry until the peer has closed too: raise `" + timeoutName(state) + "`"}
	}
}

// runsOut reports whether the entry will end before the connection is due to
// renew it. The timer of a socket in FIN_WAIT2 that no process has renews
// nothing: it ends the socket.
func (h *Host) runsOut(s *sockdiag.Socket, f *conntrack.Flow) bool {
	if !f.Has(conntrack.FieldTimeout) || f.Offloaded() {
		return false
	}
	switch s.Timer {
	case sockdiag.TimerKeepalive:
		return s.Expires > f.Timeout && (s.State != sockdiag.FinWait2 || s.HasOwner())
	case sockdiag.TimerOff:
		whole := h.Settings.Timeouts.TCP(f.TCP.State)
		return f.Timeout <= min(whole/2, time.Hour)
	}
	return false // something is about to be sent
}

func (h *Host) ending(s *sockdiag.Socket, f *conntrack.Flow) Finding {
	finding := Finding{
		Detector: "LostFlows", Severity: Warning, Confidence: Likely,
		Subject: connection(SocketTuple(s)),
		Fix:     lostFix(s.State),
		Evidence: Evidence{
			Sockets: []sockdiag.Socket{*s}, Flows: []conntrack.Flow{*f},
		},
	}
	if !h.Now.IsZero() {
		finding.Until = h.Now.Add(f.Timeout)
	}
	finding.Cause = fmt.Sprintf("the socket is %v, and its conntrack entry ends in %s", s.State, seconds(f.Timeout))
	if s.Timer == sockdiag.TimerKeepalive {
		finding.Cause += fmt.Sprintf(", before the next keep-alive in %s", seconds(s.Expires))
	} else {
		finding.Confidence = Possible // the application may send in time
		finding.Cause += " unless something is sent; no keep-alive is due"
	}
	if set, ok := timeoutSetting(h.Settings, f.TCP.State); ok {
		finding.Evidence.Settings = []Setting{set}
	}
	return finding
}
