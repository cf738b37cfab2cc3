package detect

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Census finds states that a great share of all connections are in, and says
// what that means. It is coarse where the other detectors name the culprit: it
// needs neither tcp_info nor owners, and is made for hosts with very many
// connections.
//
// A state piles up when more than Limit connections, and more than Share of all,
// are in it. ESTABLISHED never does; TIME_WAIT and FIN_WAIT2 are worth knowing,
// no more, and need half of all. The rows must be those of all states. What it
// keeps is Counts; use that to have the numbers.
type Census struct {
	// Limit is how many connections in one state are taken for normal; 0 is
	// 500, 100 of CLOSING, 5000 of FIN_WAIT2 and 50000 of TIME_WAIT, and of
	// flows ten times as many: a router sees them of many hosts.
	Limit uint64
	// Share is the share of all connections that one state may have, 0 to 1; 0
	// is 0.2, a hundredth of CLOSING, and half of FIN_WAIT2 and TIME_WAIT.
	Share float64
}

// Name returns "Census".
func (Census) Name() string { return "Census" }

// Look counts.
func (d Census) Look(h *Host) Look {
	counts := new(Counts)
	look := counts.Look(h)
	look.Findings = func() []Finding { return d.findings(h, counts) }
	return look
}

// meaning is what a pile-up in a state means.
type meaning struct {
	state    sockdiag.State
	flow     conntrack.TCPState // the tracker's; TCPNone is none
	limit    uint64
	share    float64
	severity Severity
	means    string
	remedies []remedy
	fix      []string
}

var meanings = []meaning{
	{sockdiag.SynSent, conntrack.TCPSynSent, 500, 0.2, Warning,
		"nobody answers what is asked for: the peer is missing or a firewall drops it, or a host here scans others",
		nil, []string{"see where to: `ss -tn state syn-sent`, or `conntrack -L -p tcp --state SYN_SENT`"}},
	{sockdiag.SynRecv, conntrack.TCPSynRecv, 500, 0.2, Warning,
		"handshakes are begun and not finished: a SYN flood, or an accept queue that is full",
		[]remedy{{"let clients in meanwhile", syncookies}, {"forget them sooner", synAckRetries}},
		[]string{"see whose they are: `ss -tn state syn-recv`"}},
	{sockdiag.FinWait1, conntrack.TCPNone, 500, 0.2, Warning,
		"what was closed here is not acknowledged: the peers vanished or read no more; each can hold 64 KiB of kernel memory",
		[]remedy{{"give up sooner on peers that answer nothing", orphanRetries}}, []string{"see with whom: `ss -tn state fin-wait-1`"}},
	{sockdiag.FinWait2, conntrack.TCPNone, 5000, 0.5, Info,
		"this host closes and its peers do not",
		[]remedy{{"end sooner what is closed from now on", finTimeout}}, []string{"see with whom: `ss -tn state fin-wait-2`"}},
	{sockdiag.CloseWait, conntrack.TCPCloseWait, 500, 0.2, Warning,
		"the peers have closed and the applications do not: a leak of sockets",
		nil, []string{"see whose: `ss -tnp state close-wait`, or Leaks"}},
	{sockdiag.LastAck, conntrack.TCPLastAck, 500, 0.2, Info,
		"the peers closed first and vanished, as after a load test that was killed",
		[]remedy{{"give up sooner on peers that answer nothing", orphanRetries}}, []string{"see with whom: `ss -tn state last-ack`"}},
	{sockdiag.Closing, conntrack.TCPNone, 100, 0.01, Info,
		"both ends closed at once, which is rare: many are odd",
		nil, []string{"see with whom: `ss -tn state closing`"}},
	{sockdiag.TimeWait, conntrack.TCPTimeWait, 50000, 0.5, Info,
		"the end that closes first closes often: short connections without keep-alive, or one source that connects over and over",
		nil, []string{"reuse connections (HTTP keep-alive, pools)", "see with whom: `ss -tn state time-wait`",
			"see how many there can be: `sysctl net.ipv4.tcp_max_tw_buckets`, and of clients `sysctl net.ipv4.ip_local_port_range`"}},
}

// findings tells of the sockets, and of flows in a state that the sockets did
// not explain.
func (d Census) findings(h *Host, c *Counts) []Finding {
	var found []Finding
	for i := range meanings {
		m := &meanings[i]
		if d.piles(m, 1, c.Sockets[m.state], c.Sockets.Connections()) {
			found = append(found, m.remedied(h, d.sockets(m, c)))
		} else if m.flow != conntrack.TCPNone && d.piles(m, 10, c.Flows[m.flow], c.Flows.Total()) {
			found = append(found, m.passing(h, d.flows(m, c), c))
		}
	}
	return found
}

func (d *Census) limit(m *meaning, times uint64) uint64 {
	return cmp.Or(d.Limit, m.limit*times)
}

func (d *Census) piles(m *meaning, times, n, all uint64) bool {
	return n > d.limit(m, times) && float64(n) > cmp.Or(d.Share, m.share)*float64(all)
}

func (d *Census) sockets(m *meaning, c *Counts) Finding {
	n, all := c.Sockets[m.state], c.Sockets.Connections()
	cause := fmt.Sprintf("%d of %d connections are %v", n, all, m.state)
	if port, most := c.busiest(m.state); most > 0 {
		cause += fmt.Sprintf(", %d of them on port %d", most, port)
	}
	return m.finding("sockets in "+m.state.String(), cause, n, d.limit(m, 1))
}

func (d *Census) flows(m *meaning, c *Counts) Finding {
	n, all := c.Flows[m.flow], c.Flows.Total()
	return m.finding("flows in "+m.flow.String(), fmt.Sprintf("%d of %d TCP flows are %v", n, all, m.flow), n, d.limit(m, 10))
}

// remedied adds the settings that help.
func (m *meaning) remedied(h *Host, f Finding) Finding {
	for _, r := range m.remedies {
		h.remedy(&f, r.why, r.setting)
	}
	return f
}

// passing adds the same to what the tracker tells, unless there are sockets, which do
// not pile up: then the flows are of other hosts.
func (m *meaning) passing(h *Host, f Finding, c *Counts) Finding {
	if len(m.remedies) == 0 || c.Sockets.Total() == 0 {
		return m.remedied(h, f)
	}
	f.Fix = append(f.Fix, onServer)
	return f
}

func (m *meaning) finding(subject, cause string, n, limit uint64) Finding {
	return Finding{
		Detector: "Census", Severity: m.severity, Confidence: Possible,
		Subject: subject, Count: n, Limit: limit,
		Cause: cause + ": " + m.means, Fix: slices.Clone(m.fix),
		Evidence: Evidence{Missing: []string{"by whom and with whom: Leaks, SynFlood, OutboundScan, PerSource"}},
	}
}
