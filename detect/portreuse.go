package detect

import (
	"fmt"
	"net/netip"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// PortReuse finds entries that refuse a new connection from a port that was used
// before: its SYN would come in their reply direction, where it is INVALID in
// every state but TIME_WAIT. So it is where the tracker took the host that
// accepted a connection for the one that began it, because it picked the
// connection up in the middle (tcp_loose) or was flushed.
//
// Two are found. One is an entry that has outlived its socket, from the port of
// a service that listens: until it ends, the client cannot use its port again.
// The other stands right now in the way of a socket of this host in SYN_SENT.
// Entries that are ESTABLISHED and [UNREPLIED] are left to Ghosts.
//
// In the original direction a SYN passes: the tracker lets the two ends settle
// what is true. Forwarded flows are left out, as are offloaded ones.
//
// A pass keeps at most 40 bytes for each connected socket, 40 for each that
// listens, and Most findings.
type PortReuse struct {
	// Most is how many are told one by one; 0 is 1000. One more finding counts
	// those beyond.
	Most int
}

// Name returns "PortReuse".
func (PortReuse) Name() string { return "PortReuse" }

// Look begins a pass.
func (r PortReuse) Look(h *Host) Look {
	p := &reusePass{
		host: h, own: newOwnAddrs(h), list: list{most: r.Most},
		sockets: newConnections[sockdiag.State](), services: make(map[uint16]struct{}),
	}
	return Look{Socket: p.socket, Flow: p.flow, Findings: func() []Finding {
		return p.list.told("PortReuse", "entries that refuse new connections")
	}}
}

type reusePass struct {
	host     *Host
	own      ownAddrs
	sockets  connections[sockdiag.State]
	services map[uint16]struct{} // ports that listen
	list     list
}

func (p *reusePass) socket(s *sockdiag.Socket) {
	if !isTCP(s) {
		return
	}
	p.own.add(s.Local.Addr())
	if s.State == sockdiag.Listen {
		p.services[s.Local.Port()] = struct{}{}
		return
	}
	*p.sockets.of(socketEnds(s)) = s.State
}

// refuses reports whether a SYN in the reply direction of the flow is INVALID
// (tcp_conntracks in net/netfilter/nf_conntrack_proto_tcp.c).
func refuses(f *conntrack.Flow) bool {
	if !shows(f, conntrack.FieldTCP) || offloaded(f) {
		return false
	}
	switch f.TCP.State {
	case conntrack.TCPSynRecv, conntrack.TCPEstablished, conntrack.TCPFinWait, conntrack.TCPCloseWait,
		conntrack.TCPLastAck, conntrack.TCPClose:
		return true
	}
	return false
}

func (p *reusePass) flow(f *conntrack.Flow) {
	if !refuses(f) || pickedUp(f) {
		return
	}
	if !p.own.has(f.Original.Src) && !p.own.has(f.Reply.Src) {
		return
	}
	if state := p.sockets.get(tupleEnds(&f.Reply)); state != nil {
		if *state == sockdiag.SynSent && p.list.room() {
			p.list.found = append(p.list.found, p.host.inTheWay(f))
		}
		return
	}
	if p.outlived(f) && p.list.room() {
		p.list.found = append(p.list.found, p.host.dying(f))
	}
}

// outlived reports whether the flow is one that a service of this host seems to
// have begun, and has no more. One that began with a SYN shows options of it,
// and not the flag of those that were picked up: the port both listens and
// connects, as those of peer-to-peer programs.
func (p *reusePass) outlived(f *conntrack.Flow) bool {
	if !p.own.has(f.Original.Src) || p.own.has(f.Original.Dst) || flagged(f) && f.TCP.OriginalFlags&conntrack.TCPLiberal == 0 {
		return false
	}
	if _, listens := p.services[f.Original.SrcPort]; !listens {
		return false
	}
	return p.sockets.get(tupleEnds(&f.Original)) == nil
}

// flagged reports whether the flags of the TCP connection are known. Text does
// not have them.
func flagged(f *conntrack.Flow) bool { return f.TCP.OriginalFlags|f.TCP.ReplyFlags != 0 }

func (h *Host) inTheWay(f *conntrack.Flow) Finding {
	finding := h.reuse(f)
	finding.Severity, finding.Subject = Critical, connection(f.Reply)
	finding.Cause = fmt.Sprintf("this host is connecting, and its packets meet an old entry in the other direction, in %v: "+
		"they and the answers are INVALID%s", f.TCP.State, lasting(f))
	return finding
}

func (h *Host) dying(f *conntrack.Flow) Finding {
	finding := h.reuse(f)
	finding.Severity, finding.Subject = Warning, connection(f.Original)
	finding.Sources = []netip.Prefix{sourceOf(f.Original.Dst).prefix()}
	finding.Cause = fmt.Sprintf("the entry is in %v and its socket is gone, and it was begun by the port that listens (picked up in the middle): "+
		"a new connection %s is INVALID%s", f.TCP.State, connection(f.Reply), lasting(f))
	if !flagged(f) {
		finding.Confidence = Possible
		finding.Evidence.Missing = append(finding.Evidence.Missing, "the entry's TCP flags: whether it was picked up, or the port connects too")
	}
	return finding
}

// lasting is how long the entry stays, if that was told.
func lasting(f *conntrack.Flow) string {
	if !f.Has(conntrack.FieldTimeout) {
		return ""
	}
	return " for another " + seconds(f.Timeout)
}

// reuse is what both findings have.
func (h *Host) reuse(f *conntrack.Flow) Finding {
	finding := Finding{
		Detector: "PortReuse", Confidence: Likely,
		Fix: []string{
			"delete the entry: `" + DeleteCommand(f) + "`",
			"use other source ports until it ends",
		},
		Evidence: Evidence{Flows: []conntrack.Flow{*f}},
	}
	if f.Has(conntrack.FieldTimeout) && !h.Now.IsZero() {
		finding.Until = h.Now.Add(f.Timeout)
	}
	if set, ok := timeoutSetting(h.Settings, f.TCP.State); ok {
		finding.Evidence.Settings = []Setting{set}
	} else {
		finding.Evidence.Missing = []string{"the tracker's settings"}
	}
	return finding
}
