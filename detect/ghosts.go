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
func Ghosts(h Host) []Finding {
	suspects := h.pickedUp()
	if len(suspects) == 0 {
		return nil
	}
	own, alive := h.local(), h.alive(suspects)
	var found []Finding
	for _, f := range suspects {
		ours := own[f.Original.Src] || own[f.Reply.Src]
		if ours && !alive[f.Original] && !alive[f.Reply] {
			found = append(found, h.ghost(f))
		}
	}
	return found
}

// pickedUp returns the flows that are ESTABLISHED and [UNREPLIED].
func (h *Host) pickedUp() []*conntrack.Flow {
	var flows []*conntrack.Flow
	for i := range h.Flows {
		f := &h.Flows[i]
		if f.Has(conntrack.FieldTCP) && f.TCP.State == conntrack.TCPEstablished && f.Unreplied() && !f.Offloaded() {
			flows = append(flows, f)
		}
	}
	return flows
}

// alive tells, of the tuples of flows, those whose packets a socket of this
// host sends. One in SYN_SENT has no connection yet: it may be the one that
// the ghost stands in the way of.
func (h *Host) alive(flows []*conntrack.Flow) map[conntrack.Tuple]bool {
	alive := make(map[conntrack.Tuple]bool, 2*len(flows))
	for _, f := range flows {
		alive[f.Original], alive[f.Reply] = false, false
	}
	for i := range h.Sockets {
		s := &h.Sockets[i]
		t := SocketTuple(s)
		if _, asked := alive[t]; asked && s.State != sockdiag.SynSent {
			alive[t] = true
		}
	}
	return alive
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
			"keep closing entries longer than the longest request: raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait`",
			"pick up nothing in the middle: `sysctl net.netfilter.nf_conntrack_tcp_loose=0`, at the cost of every " +
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
	loose := "0"
	if h.Settings.TCPLoose {
		loose = "1"
	}
	settings := []Setting{{"net.netfilter.nf_conntrack_tcp_loose", loose}}
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
