package reject

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
)

// reversed reports a SYN in the reply direction of an entry.
func (e *known) reversed() bool {
	return e.here() && e.opens() && e.side == reply && e.mayBe(Invalid) && e.Entry.Value.Has(conntrack.FieldTCP)
}

// refutes reports a reason other than a state's: it is the kernel's word, and
// another row's.
func (e *known) refutes() bool { return e.reason.Kind != ReasonNone && e.reason.Kind != ReasonState }

// C05: a SYN in the reply direction of an entry that is ESTABLISHED and
// [UNREPLIED].
func isGhost(e *known) bool {
	return e.reversed() && !e.refutes() && e.Entry.Value.Unreplied() && e.then() == conntrack.TCPEstablished
}

func explainGhost(e *known, v *Verdict) {
	f := e.Entry.Value
	v.Confidence = detect.Likely
	if e.reason.Kind == ReasonState {
		v.Confidence = detect.Certain
	} else {
		e.reasonMissing(v)
	}
	v.Summary = fmt.Sprintf("ghost entry %v: picked up in the middle of an earlier connection (tcp_loose)%s, it outlived "+
		"the connection and lasts another %ds; the new SYN comes in its reply direction, which makes it INVALID",
		f, howRaised(e), int64(f.Timeout/time.Second))
	s := e.Settings.Value
	v.fact(e.setting("nf_conntrack_tcp_loose", bit(s.TCPLoose))...)
	v.fact(e.setting("nf_conntrack_tcp_timeout_close_wait", secs(s.Timeouts.TCPCloseWait))...)
	v.fact(e.setting("nf_conntrack_tcp_timeout_unacknowledged", secs(s.Timeouts.TCPUnacknowledged))...)
	v.fix("delete the entry: `"+detect.DeleteCommand(&f)+"`",
		"raise `net.netfilter.nf_conntrack_tcp_timeout_close_wait` above the longest request: the peer then answers the "+
			"late data with a RST, and both sides are clean",
		"let the application close when the peer has closed (end of file)",
		"`sysctl net.netfilter.nf_conntrack_tcp_loose=0`: nothing is picked up in the middle; connections that live "+
			"while the table is flushed are cut")
	e.ghostLife(v)
}

// ghostLife advises on how long ghosts last: a kernel with the cap of
// timeout_unacknowledged (3.10 has it, 3.4 has not) forgets them that long
// after their last packet.
func (e *known) ghostLife(v *Verdict) {
	limit := e.Settings.Value.Timeouts.TCPUnacknowledged
	known := limit > 0 && e.Settings.Result == Present
	switch left := e.Entry.Value.Timeout; {
	case known && left > limit:
		v.fix(fmt.Sprintf("this entry outlasts nf_conntrack_tcp_timeout_unacknowledged, %ds: a kernel before about 3.10, or a timeout "+
			"policy; a newer kernel forgets ghosts that soon", int64(limit/time.Second)))
	case known && limit > 5*time.Minute:
		v.fix("have ghosts forgotten sooner: `sysctl net.netfilter.nf_conntrack_tcp_timeout_unacknowledged=300`, the default")
	}
}

// howRaised says how the entry before a ghost ended, if that was seen.
func howRaised(e *known) string {
	end := e.Ended.Value.Event
	if e.Ended.Result != Present || !end.Expired() || !end.Flow.Has(conntrack.FieldTCP) {
		return ""
	}
	return fmt.Sprintf(" whose entry had expired in %v at %s, with the application still at work", end.Flow.TCP.State,
		e.Ended.Value.At.Format(time.TimeOnly))
}

// C06: the same in any other state that has no place for it. The entry can be
// gone by the time that it is looked for.
func isPortReuse(e *known) bool {
	told := e.reason.Kind == ReasonState && e.reason.Exact && e.reason.Index == 0 && e.reason.Reply
	gone := told && e.here() && e.opens() && e.mayBe(Invalid) && e.side == noSide
	return gone || e.reversed() && !e.refutes() && (e.reason.Kind == ReasonState || e.State == Invalid && e.misfit())
}

func explainPortReuse(e *known, v *Verdict) {
	v.Confidence = detect.Likely
	if e.reason.Kind == ReasonState {
		v.Confidence = detect.Certain
	} else {
		e.reasonMissing(v)
	}
	entry := "of an entry that is gone meanwhile"
	if f := e.Entry.Value; e.side == reply {
		entry = fmt.Sprintf("of entry %v", f)
		v.fix("delete the entry if its connection is dead: `" + detect.DeleteCommand(&f) + "`")
	}
	v.Summary = fmt.Sprintf("a new connection uses the addresses and ports %s, which was %v, not over, and begun from the other side: "+
		"a SYN in the reply direction is INVALID", entry, e.then())
	v.fix("use other source ports")
	if t := e.Settings.Value.Timeouts.TCP(e.then()); e.Settings.Result == Present && t > 0 && e.then() != conntrack.TCPEstablished {
		v.fix(fmt.Sprintf("or wait: an entry in %v is forgotten after %ds", e.then(), int64(t/time.Second)))
	}
}

// C24: a RST to the server's own address, while its connection is to the
// translated one: the client has seen an answer whose translation was not
// undone, and knows of no such connection. For the tracker the RST is of none
// either.
func isNotTranslated(e *known) bool {
	f := &e.Entry.Value
	_, nat := f.DestinationNAT()
	bare := e.Entry.Result == Present && nat && PacketTuple(e.Packet.Value) == f.Reply.Invert()
	return e.here() && bare && e.resets() && e.State == Invalid && (e.reason.Kind == ReasonNew || e.reason.Kind == ReasonNone)
}

func explainNotTranslated(e *known, v *Verdict) {
	f := e.Entry.Value
	to, _ := f.DestinationNAT()
	v.Confidence = detect.Certain
	if e.reason.Kind != ReasonNew {
		v.Confidence = detect.Possible
		e.reasonMissing(v)
	}
	v.Summary = fmt.Sprintf("%v resets the untranslated connection to %v: an INVALID packet of %v passed here without its translation being "+
		"undone, and its receiver knows no such connection", e.Packet.Value.Src, to.To, f)
	v.fix("drop INVALID packets where they are forwarded: `ct state invalid drop`, in the chain of the forward hook",
		"or let the receiver judge: `sysctl net.netfilter.nf_conntrack_tcp_be_liberal=1`")
	v.missing("the INVALID packet before it", "tcpdump -ni any tcp and host "+to.To.Addr().String())
}
