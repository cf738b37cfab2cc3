package reject

import (
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// sighting is a refused packet, as one source tells of it.
type sighting struct {
	packet   packet.Header
	at       time.Time // when it was looked up
	refusal  Refusal
	state    State
	hook     nflog.Hook
	hasHook  bool
	hasUID   bool
	here     bool // the connection's sockets would be on this host
	doubtful bool // only the tables tell whether it was refused
	answered bool // with a RST
	unlogged bool // by rules that log all packets that are new or invalid
	uid      uint32
	reason   string
	icmp     *packet.Header // the error that was sent or received
	rule     *Rule
}

// findings is what was looked up of a flow. Its parts are shared and never
// changed.
type findings struct {
	entry, elsewhere, control finding[conntrack.Flow]
	socket, listener          finding[sockdiag.Socket]
	ended                     *Ended
	answer                    string // the reason of the SYN|ACK
	host                      *surroundings
	hurried                   bool // there was no time to look
}

// outcounted reports that the tracker removed the entry since the counters were read,
// which tell whether it was evicted.
func (f *findings) outcounted() bool {
	return f.host != nil && f.ended != nil && f.ended.Event.Reason() == conntrack.ReasonRemoved && !f.ended.At.Before(f.host.counted)
}

// finding is a Lookup that takes no room for what was not found.
type finding[T any] struct {
	value  *T
	result Result
}

func found[T any](v *T) finding[T] { return finding[T]{v, Present} }
func absent[T any]() finding[T]    { return finding[T]{result: Absent} }

func (f finding[T]) lookup() Lookup[T] {
	if f.result == Present {
		return Found(*f.value)
	}
	return Lookup[T]{Result: f.result}
}

// evidence is what Explain is asked about.
func (r *refused) evidence() Evidence {
	s, f := &r.seen, &r.found
	e := Evidence{
		Packet: Found(s.packet), At: s.at, Refusal: s.refusal, State: s.state, Reason: s.reason, Answer: f.answer,
		Entry: f.entry.lookup(), Elsewhere: f.elsewhere.lookup(), Control: f.control.lookup(),
		Socket: f.socket.lookup(), Listener: f.listener.lookup(),
	}
	if s.unlogged && s.state == StateUnknown && f.entry.result == Present {
		e.State = Established
	}
	if s.icmp != nil {
		e.ICMP = Found(*s.icmp)
	}
	if s.rule != nil {
		e.Rule = Found(*s.rule)
	}
	if s.hasHook {
		e.Hook = Found(s.hook)
	}
	if s.hasUID {
		e.Owner = Found(s.uid)
	}
	if f.ended != nil {
		e.Ended = Found(*f.ended)
	}
	if f.host != nil {
		f.host.tell(&e)
	}
	return e
}
