package detect

import (
	"fmt"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Ghosts finds flows that are ESTABLISHED and [UNREPLIED] and belong to no
// socket of this host. The tracker picked such a flow up in the middle of a
// connection whose entry had expired (tcp_loose); the peer, which had forgotten
// the connection, refused the packet, and an ICMP error does not remove an
// entry. When the peer uses the same port again, its SYN comes in the reply
// direction of the ghost, is INVALID there, and the firewall refuses it: "no
// route to host" from a service that listens.
//
// A flow whose socket still lives is not a ghost, but LostFlows found it
// before it was picked up. Forwarded flows are left out: their sockets are
// elsewhere.
//
// The kernel keeps a ghost for nf_conntrack_tcp_timeout_unacknowledged, 300 s,
// after its last packet; kernels before about 3.10 for the timeout of
// ESTABLISHED, 5 days.
//
// A pass keeps at most 30 bytes for each connected socket, and Most findings.
type Ghosts struct {
	// Most is how many are told one by one; 0 is 1000. One more finding counts
	// those beyond.
	Most int
}

// Name returns "Ghosts".
func (Ghosts) Name() string { return "Ghosts" }

// Look begins a pass.
func (g Ghosts) Look(h *Host) Look {
	p := &ghostPass{host: h, own: newOwnAddrs(h), alive: newConnections[struct{}](), list: list{most: g.Most}}
	return Look{Socket: p.socket, Flow: p.flow, Findings: func() []Finding {
		return p.list.told("Ghosts", "ghost entries")
	}}
}

type ghostPass struct {
	host *Host
	own  ownAddrs
	// alive are the connections that a socket of this host has. One in
	// SYN_SENT has none yet: it may be the one that a ghost stands in the way
	// of.
	alive connections[struct{}]
	list  list
}

func (p *ghostPass) socket(s *sockdiag.Socket) {
	p.own.add(s.Local.Addr())
	if isTCP(s) && s.State != sockdiag.SynSent {
		p.alive.of(socketEnds(s))
	}
}

func (p *ghostPass) flow(f *conntrack.Flow) {
	if !pickedUp(f) || !p.own.has(f.Original.Src) && !p.own.has(f.Reply.Src) {
		return
	}
	if !p.lives(&f.Original) && !p.lives(&f.Reply) && p.list.room() {
		p.list.found = append(p.list.found, p.host.ghost(f))
	}
}

func (p *ghostPass) lives(t *conntrack.Tuple) bool {
	return p.alive.get(tupleEnds(t)) != nil
}

// pickedUp reports whether the flow is ESTABLISHED and [UNREPLIED].
func pickedUp(f *conntrack.Flow) bool {
	return shows(f, conntrack.FieldTCP) && f.TCP.State == conntrack.TCPEstablished && unreplied(f) && !offloaded(f)
}

func (h *Host) ghost(f *conntrack.Flow) Finding {
	lasts := ""
	if f.Has(conntrack.FieldTimeout) {
		lasts = " for another " + seconds(f.Timeout)
	}
	finding := Finding{
		Detector: "Ghosts", Severity: Critical, Confidence: Likely,
		Subject: connection(f.Original),
		Cause: fmt.Sprintf("ghost entry: ESTABLISHED [UNREPLIED]%s, picked up in the middle of a "+
			"connection (tcp_loose) and without a socket on this host; until it is gone, a new connection "+
			"%s is INVALID here", lasts, connection(f.Reply)),
		Fix: []string{
			"delete the entry: `" + DeleteCommand(f) + "`",
			"keep closing entries longer than the longest request: " + h.longer(conntrack.TCPCloseWait),
			"pick up nothing in the middle: `sysctl -w net.netfilter.nf_conntrack_tcp_loose=0`, at the cost of every " +
				"connection that lives while the tracker starts or its table is flushed",
		},
		Evidence: Evidence{Flows: []conntrack.Flow{*f}},
	}
	if f.Has(conntrack.FieldTimeout) && !h.Now.IsZero() {
		finding.Until = h.Now.Add(f.Timeout)
	}
	if h.Settings.Has("nf_conntrack_tcp_loose") {
		finding.Evidence.Settings = h.looseSettings()
		if !h.Settings.TCPLoose {
			finding.Confidence = Possible
			finding.Evidence.Missing = []string{"tcp_loose is off now: who made the entry, and when"}
		}
	} else {
		finding.Evidence.Missing = []string{"the tracker's settings"}
	}
	return finding
}

func (h *Host) looseSettings() []Setting {
	settings := []Setting{{"net.netfilter.nf_conntrack_tcp_loose", fmt.Sprint(flag(h.Settings.TCPLoose))}}
	if s, ok := timeoutSetting(h.Settings, conntrack.TCPCloseWait); ok {
		settings = append(settings, s)
	}
	return settings
}

// DeleteCommand is the conntrack(8) command that deletes a TCP or UDP flow.
func DeleteCommand(f *conntrack.Flow) string {
	t := f.Original
	family := "ipv4"
	if !t.Src.Is4() {
		family = "ipv6"
	}
	cmd := fmt.Sprintf("conntrack -D -f %s -p %v -s %v -d %v --sport %d --dport %d",
		family, t.Proto, t.Src, t.Dst, t.SrcPort, t.DstPort)
	if f.Zone != 0 {
		cmd += fmt.Sprintf(" -w %d", f.Zone)
	}
	return cmd
}
