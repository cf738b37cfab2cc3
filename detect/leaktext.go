package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// This file has what the findings of Leaks say.

// notClosed is CLOSE_WAIT: the application has not closed.
func (l *leaking) notClosed(f *Finding, k pileKey, p *pile) {
	f.Cause = fmt.Sprintf("%d sockets are CLOSE_WAIT%s: the peers have closed, and the application has not "+
		"closed in turn; each keeps a file descriptor", p.count, p.age(" the longest for at least %s"))
	l.owned(f, k, p)
	f.Fix = []string{
		"close the socket at end of file, when read(2) returns 0; see them: `ss -tnpe state close-wait '" + k.service.filter() + "'`",
		"until that is mended, restart the application before its descriptors are exhausted",
	}
}

// halfClosed is FIN_WAIT2 of an application that has shut down its half only,
// which no timeout of the kernel ends.
func (l *leaking) halfClosed(f *Finding, k pileKey, p *pile) {
	f.Cause = fmt.Sprintf("%d sockets are FIN_WAIT2 and still open%s: the application has shut down its half and "+
		"waits for the peers to close; tcp_fin_timeout does not end what is open", p.count, p.age(" the longest quiet for %s"))
	l.owned(f, k, p)
	f.Fix = []string{
		"close the socket some time after shutdown(2): a read timeout in the application; see them: `ss -tnpe state fin-wait-2 '" + k.service.filter() + "'`",
		"find peers that are gone: SO_KEEPALIVE set by the application",
	}
	l.host.remedy(f, "find them sooner, on new connections", keepaliveTime)
}

// owned adds the owner, and what is missing about it and about ages.
func (l *leaking) owned(f *Finding, k pileKey, p *pile) {
	if k.owner.known {
		f.Subject += ", " + l.host.ownerText(&p.rows[0])
	}
	switch {
	case !k.owner.known:
		f.Evidence.Missing = append(f.Evidence.Missing, "the owner: the rows have no inode numbers")
	case k.owner.pid == 0:
		f.Evidence.Missing = append(f.Evidence.Missing, "the process: Host.Holders, or ss -tnp")
	}
	switch {
	case p.untold > 0:
		f.doubtAge("since when they are so: tcp_info (Query.Info)")
	case p.count-p.answered <= f.Limit:
		f.doubtAge("since when they are so: the peers answer keep-alives, so that the last packet is always young")
	case !l.host.Now.IsZero():
		f.Since = l.host.Now.Add(-p.oldest)
	}
}

func (f *Finding) doubtAge(missing string) {
	f.Confidence = Possible
	f.Evidence.Missing = append(f.Evidence.Missing, missing)
}

// age is the age of the oldest, if that is known.
func (p *pile) age(format string) string {
	if p.untold > 0 {
		return ""
	}
	return "," + fmt.Sprintf(format, p.oldest.Truncate(time.Second/10))
}

// halfClosedOrphans is FIN_WAIT2 that no process has.
func (l *leaking) halfClosedOrphans(f *Finding, k pileKey, p *pile) {
	f.Severity = Info
	f.Cause = fmt.Sprintf("%d sockets are FIN_WAIT2: this host has closed, and the peers have not; "+
		"each ends after tcp_fin_timeout", p.count)
	l.host.remedy(f, "end sooner what is closed from now on", finTimeout)
	f.Fix = append(f.Fix, "end them now: `ss -K state fin-wait-2 '"+k.service.filter()+"'`")
	f.Since = l.host.begun(f.Evidence.Sockets)
	if f.Evidence.Sockets[0].Has(sockdiag.UnknownOwner) {
		f.Confidence = Possible
		f.Cause = fmt.Sprintf("%d sockets are FIN_WAIT2: this host has closed its half, and the peers have not", p.count)
		f.Evidence.Missing = []string{"whether a process has them: those that are open tcp_fin_timeout does not end"}
	}
	f.Sources = p.peers.above(f.Limit)
}

// unanswered is FIN_WAIT1, LAST_ACK and CLOSING: mostly nobody has the socket
// any more, and the kernel goes on alone.
func (l *leaking) unanswered(f *Finding, k pileKey, p *pile) {
	f.Sources = p.peers.above(f.Limit)
	f.Cause = fmt.Sprintf("%d sockets are %v%s: %s; %s", p.count, k.state, l.kept(f, k, p), p.why(k.state), p.weight())
	f.Fix = append(f.Fix, fmt.Sprintf("end them now: `ss -K state %s '%s'`", ssWord(k.state), k.service.filter()))
	f.Since = l.host.begun(f.Evidence.Sockets)
	if len(f.Sources) > 0 {
		f.Fix = append(f.Fix, "ban the sources if they do so on purpose: "+p.peers.text(f.Sources))
	}
	if p.weighed < p.count {
		f.Evidence.Missing = append(f.Evidence.Missing, "the memory they hold (Query.Memory)")
	}
	if p.untold > 0 {
		f.Confidence = Possible
		f.Evidence.Missing = append(f.Evidence.Missing, "their timers: whether they retransmit or have only just closed")
	}
	l.weigh(f, k)
}

// kept is by whom they are kept: an application that has only shut down its
// half keeps its sockets. Probes of a closed window are not counted while the peer
// answers them (tcp_ack).
func (l *leaking) kept(f *Finding, k pileKey, p *pile) string {
	switch {
	case k.owner.known:
		who := l.host.ownerText(&p.rows[0])
		f.Subject += ", " + who
		f.Fix = []string{"give up sooner on peers that answer nothing: `sysctl -w net.ipv4.tcp_retries2=8`, at the cost that closed connections " +
			"to peers that answer and do not read never end; on all: TCP_USER_TIMEOUT, set by the application"}
		return " and " + who + " has them open"
	case p.rows[0].Has(sockdiag.UnknownOwner):
		f.Evidence.Missing = append(f.Evidence.Missing, "whether a process has them")
		l.host.remedy(f, "give up sooner on peers that answer nothing", orphanRetries)
		return ""
	}
	l.host.remedy(f, "give up sooner on peers that answer nothing", orphanRetries)
	return " and no process has them"
}

// why is what keeps them.
func (p *pile) why(state sockdiag.State) string {
	switch {
	case state == sockdiag.LastAck:
		return "the peers closed first and vanished, as clients do that are killed"
	case state == sockdiag.Closing:
		return "both ends closed at once, and the peers do not acknowledge it, which is rare"
	case p.probing == 0:
		return "what was sent before the close is not acknowledged: the peers vanished, are filtered or take no more"
	}
	return fmt.Sprintf("data was left to send at the close, and the peers of %d take none (zero window)", p.probing)
}

// weight is what they cost.
func (p *pile) weight() string {
	if p.weighed == p.count {
		return fmt.Sprintf("they hold %d KiB of kernel memory", (p.memory+1023)/1024)
	}
	return fmt.Sprintf("each can hold 64 KiB of kernel memory; %d bytes of data wait to be acknowledged", p.unsent)
}

// weigh grades FIN_WAIT1 by tcp_max_orphans, above which the kernel resets
// connections, and LAST_ACK and CLOSING, which hold little.
func (l *leaking) weigh(f *Finding, k pileKey) {
	switch {
	case k.state != sockdiag.FinWait1:
		f.Severity = Info
		return
	case k.owner.known:
		return
	}
	if !l.host.has(maxOrphans) {
		f.Evidence.Missing = append(f.Evidence.Missing, maxOrphans)
		return
	}
	most := l.host.Sysctls.MaxOrphans
	f.Evidence.Settings = append(f.Evidence.Settings, Setting{maxOrphans, fmt.Sprint(most)})
	f.Cause += fmt.Sprintf("; when all have more than %d, the kernel resets them", most)
	if f.Count >= most/2 {
		f.Severity = Critical
	}
}

// ssWord is the state as ss(8) reads it.
func ssWord(s sockdiag.State) string {
	switch s {
	case sockdiag.FinWait1:
		return "fin-wait-1"
	case sockdiag.LastAck:
		return "last-ack"
	}
	return "closing"
}
