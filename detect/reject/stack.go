package reject

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
)

// stackDrops are counters of what the network stack itself dropped, if there is
// no packet to explain.
func (e *known) stackDrops() Counters {
	if e.Packet.Result == Present || e.Counters.Result != Present {
		return Counters{}
	}
	return e.Counters.Value
}

// S4: the packet is dropped between prerouting and input or forward
// (ip_rcv_finish), without an ICMP error. IPv6 has no such setting; there it is
// a rule that drops (fib, rpfilter).
func isReversePath(e *known) bool { return e.stackDrops().ReversePath > 0 }

func explainReversePath(e *known, v *Verdict) {
	c := e.stackDrops()
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("in %v, %d packets were dropped because the route to their sender leaves by another interface than they came in by "+
		"(net.ipv4.conf.*.rp_filter = 1), or there is none: before input and forward see them, and without a word", c.in(), c.ReversePath)
	v.missing("from whom they came, and by which interface", "sysctl net.ipv4.conf.all.log_martians=1; dmesg | grep 'martian source'")
	v.fix("if both ways are meant: `sysctl net.ipv4.conf.all.rp_filter=2`, with which any route to the sender will do (of all's and the interface's, the larger counts)",
		"else let answers leave by where the packets come in: `ip route get ADDRESS` shows the way now; a rule by source address (ip-rule(8)) can give each link its own",
		"if nothing should come from there: it is forged, and rightly dropped")
}

// S5: the kernel drops the SYN, or the last packet of the handshake, and the
// client takes the first for loss and itself for connected with the second
// (tcp_conn_request, tcp_v4_syn_recv_sock).
func isAcceptQueueFull(e *known) bool { return e.stackDrops().Overflows > 0 }

func explainAcceptQueueFull(e *known, v *Verdict) {
	c := e.stackDrops()
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("in %v, %d packets of handshakes were dropped without a word, because connections that nobody accepts fill the queue of a "+
		"listening socket", c.in(), c.Overflows)
	if s := e.Listener; s.Result == Present {
		v.Summary += fmt.Sprintf(": of %v, where %d wait and the backlog is %d", s.Value.Local, s.Value.AcceptQueue, s.Value.Backlog)
	} else {
		v.missing("which listener: its Recv-Q is above its Send-Q", "ss -tln")
	}
	v.fix("have the program accept: it hangs, has no descriptor left, or does too much between two accept(2)",
		"if it does accept, and they come in bursts: a larger argument of listen(2), and `net.core.somaxconn` no less",
		"for clients to learn of it at once, by a RST: `sysctl net.ipv4.tcp_abort_on_overflow=1`")
}
