package reject

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// loaded reports a source above its limit, with no packet to explain.
func (e *known) loaded() bool {
	return e.Packet.Result != Present && e.Load.Result == Present && e.Load.Value.Count > e.Load.Value.Limit
}

// exhausted reports that nine tenths of the descriptors are used.
func (e *known) exhausted() bool {
	l := e.Load.Value
	return l.Allowed > 0 && l.Descriptors >= l.Allowed-l.Allowed/10
}

// who is the source, as commands take it.
func (l *Load) who() string {
	if l.Source.IsSingleIP() {
		return l.Source.Addr().String()
	}
	return l.Source.String()
}

// L1
func isIdleFlood(e *known) bool {
	return e.loaded() && e.Load.Value.State == sockdiag.Established
}

func explainIdleFlood(e *known, v *Verdict) {
	l := e.Load.Value
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v holds %d connections, more than %d", l.who(), l.Count, l.Limit)
	switch {
	case !l.Idle:
		v.Confidence = detect.Possible
		v.missing("whether they carry anything", "ss -tni state established dst "+l.who())
	case e.exhausted():
		v.Confidence = detect.Certain
	}
	if l.Idle {
		v.Summary += ", which carry nothing"
	}
	if l.Allowed > 0 {
		v.Summary += fmt.Sprintf("; the process has %d of %d descriptors open, and accepts none beyond", l.Descriptors, l.Allowed)
	} else {
		v.missing("how many descriptors are left", "prlimit --nofile")
	}
	v.fix(fmt.Sprintf("allow each source so many at most: `add @sources { ip%s saddr ct count over %d } reject`, with `type ipv%s_addr; flags dynamic` "+
		"(iptables: `-m connlimit --connlimit-above %[2]d`)", six(l.Source.Addr().Is6()), max(l.Limit, 1), ipv(l.Source.Addr().Is6())),
		fmt.Sprintf("ban %v, unless it is one of yours", l.who()),
		"let the application close what is idle; TCP's own probes begin after `net.ipv4.tcp_keepalive_time`, 2 h")
}

func ipv(is6 bool) string {
	if is6 {
		return "6"
	}
	return "4"
}

// piles are what it means that a state which should be short piles up, and what
// to do.
var piles = map[sockdiag.State]struct{ means, fix string }{
	sockdiag.SynSent: {"asks what does not answer: its target is gone or filtered, or it scans",
		"look whom it asks: `ss -tn state syn-sent`; shorten its patience: `net.ipv4.tcp_syn_retries`"},
	sockdiag.SynRecv: {"begins connections and does not finish them: a SYN flood, forged addresses, or answers that take another way",
		"`sysctl net.ipv4.tcp_syncookies=1`, and limit it: `tcp flags syn limit rate over 50/second drop`"},
	sockdiag.FinWait1: {"does not acknowledge the end: it vanished, or its window is closed",
		"`net.ipv4.tcp_orphan_retries`, which bounds how long a closed socket tries"},
	sockdiag.FinWait2: {"does not close its half", "`net.ipv4.tcp_fin_timeout`, which bounds the wait"},
	sockdiag.LastAck:  {"vanished while closing", "`net.ipv4.tcp_orphan_retries`, which bounds how long a closed socket tries"},
	sockdiag.Closing:  {"closes at the same moment and vanishes", "`net.ipv4.tcp_orphan_retries`, which bounds how long a closed socket tries"},
	sockdiag.CloseWait: {"has closed, and the application here has not",
		"let the application close when the peer has closed (end of file): `ss -tnp state close-wait`"},
	sockdiag.TimeWait: {"opens connections and has them closed from here, one after the other",
		"ban it, if it is not one of yours; keep connections open (keep-alive), if it is"},
}

// L2
func isStatePile(e *known) bool {
	_, ok := piles[e.Load.Value.State]
	return e.loaded() && ok
}

func explainStatePile(e *known, v *Verdict) {
	l := e.Load.Value
	pile := piles[l.State]
	v.Confidence = detect.Likely
	v.Summary = fmt.Sprintf("%v has %d connections in %v, more than %d: it %s", l.who(), l.Count, l.State, l.Limit, pile.means)
	v.missing("whether it lasts: a second look a minute later", "ss -tan dst "+l.who())
	v.fix(pile.fix, fmt.Sprintf("ban %v, if it is not one of yours", l.who()))
}
