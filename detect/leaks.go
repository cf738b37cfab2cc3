package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Leaks finds sockets that wait for the end of their connection and pile up:
// CLOSE_WAIT that the application does not close, FIN_WAIT1, LAST_ACK and
// CLOSING that the peer does not let go, and FIN_WAIT2 that the peer does not
// close. Each finding is about one state, one service (a local port, or the
// remote end if this host connects) and one owner: the process if Host.Holders
// has it, else user and cgroup.
//
// A row counts only when it has waited: in CLOSE_WAIT, and in FIN_WAIT2 of an
// owner, for Age by its tcp_info (Query.Info); in the other states when it has
// retransmitted, or probes a peer that takes nothing (TimerProbe). A host that
// closes many connections at once therefore has no leak. What a row does not
// tell, as text does not, counts with less confidence.
//
// A service is a port with a listener in an earlier row, as the kernel gives
// them, else the lower of the two ports. What is kept is a few hundred bytes
// for each state, service and owner, of which it knows 65536 at most.
type Leaks struct {
	// CloseWait, FinWait1, FinWait2, LastAck and Closing are how many sockets
	// in the state, of one service and one owner, are taken for normal. 0 is
	// 60, and 10 of Closing.
	CloseWait, FinWait1, FinWait2, LastAck, Closing uint64
	// Orphans is the same of sockets in FIN_WAIT2 without an owner, which end
	// after net.ipv4.tcp_fin_timeout; 0 is 1000.
	Orphans uint64
	// Age is how long an application may take to close; 0 is a minute.
	Age time.Duration
}

// Name returns "Leaks".
func (Leaks) Name() string { return "Leaks" }

// Look counts the sockets.
func (d Leaks) Look(h *Host) Look {
	l := &leaking{Leaks: d, host: h, listening: make(map[uint16]bool), piles: make(map[pileKey]*pile)}
	return Look{Socket: l.socket, Findings: l.findings}
}

type leaking struct {
	Leaks
	host      *Host
	listening map[uint16]bool
	piles     map[pileKey]*pile
}

type pileKey struct {
	state   sockdiag.State
	service service
	owner   owner
}

const maxPiles = 1 << 16

// pile is the sockets of one key that wait.
type pile struct {
	count    uint64
	untold   uint64        // of count: how long, or by their timers whether, is not known
	answered uint64        // of count: keep-alives hide for how long
	oldest   time.Duration // of those that tell
	probing  uint64        // the peer takes nothing
	memory   uint64        // of the weighed, in bytes
	weighed  uint64
	unsent   uint64 // bytes of data, of all
	peers    peers  // of those without an owner
	rows     []sockdiag.Socket
}

func (l *leaking) socket(s *sockdiag.Socket) {
	if !isTCP(s) {
		return
	}
	if s.State == sockdiag.Listen {
		l.listening[s.Local.Port()] = true
		return
	}
	limit := l.limit(s.State, owned(s))
	if limit == 0 || !l.waits(s) || s.State == sockdiag.CloseWait && ownerless(s) {
		return
	}
	if p := l.pile(s); p != nil {
		p.add(s, limit, l.age())
	}
}

// limit is how many are taken for normal; 0 is any number.
func (d *Leaks) limit(state sockdiag.State, owned bool) uint64 {
	switch state {
	case sockdiag.CloseWait:
		return cmp.Or(d.CloseWait, 60)
	case sockdiag.FinWait1:
		return cmp.Or(d.FinWait1, 60)
	case sockdiag.FinWait2:
		if !owned {
			return cmp.Or(d.Orphans, 1000)
		}
		return cmp.Or(d.FinWait2, 60)
	case sockdiag.LastAck:
		return cmp.Or(d.LastAck, 60)
	case sockdiag.Closing:
		return cmp.Or(d.Closing, 10)
	}
	return 0
}

// waits reports whether a socket has been in its state for longer than is
// usual, as far as it tells.
func (l *leaking) waits(s *sockdiag.Socket) bool {
	switch {
	case aged(s):
		quiet, known := quietTime(s)
		return !known || quiet >= l.age() || answers(s, l.age())
	case s.State == sockdiag.FinWait2:
		return true
	}
	return s.Retransmits > 0 || s.Timer == sockdiag.TimerProbe || tells(s, sockdiag.UnknownTimer)
}

func (d *Leaks) age() time.Duration { return cmp.Or(d.Age, time.Minute) }

// answers reports whether keep-alives hide the age: the peer answers them, and
// the last packet is always young. Its last data was before its FIN, so that is
// no proof; an application that is about to close would not let a sixtieth of
// the time pass.
func answers(s *sockdiag.Socket, age time.Duration) bool {
	return s.Timer == sockdiag.TimerKeepalive && s.Info.LastDataRecv >= age && s.Info.LastAckRecv >= age/60
}

// aged reports whether a socket is one that the application must close: its age
// counts.
func aged(s *sockdiag.Socket) bool {
	return s.State == sockdiag.CloseWait || s.State == sockdiag.FinWait2 && owned(s)
}

// ownerless reports whether it is known that no process has the socket. In
// CLOSE_WAIT it is a connection that waits for accept(2): AcceptQueue tells.
func ownerless(s *sockdiag.Socket) bool { return !owned(s) && !tells(s, sockdiag.UnknownOwner) }

// quietTime is how long no packet of the peer has come, if tcp_info was asked
// for. A peer that has closed sent its FIN at least as long ago: that is
// acknowledgement too, and not data (tcp_ack, tcp_event_data_recv).
func quietTime(s *sockdiag.Socket) (time.Duration, bool) {
	return min(s.Info.LastAckRecv, s.Info.LastDataRecv), tells(s, sockdiag.FieldInfo)
}

func (l *leaking) pile(s *sockdiag.Socket) *pile {
	k := pileKey{s.State, serviceOf(s, l.listening), l.host.owner(s)}
	p := l.piles[k]
	if p == nil && len(l.piles) < maxPiles {
		p = new(pile)
		l.piles[k] = p
	}
	return p
}

func (p *pile) add(s *sockdiag.Socket, limit uint64, age time.Duration) {
	p.count++
	p.unsent += uint64(s.SendQueue)
	quiet, known := quietTime(s)
	if known {
		p.oldest = max(p.oldest, quiet)
	}
	switch {
	case !known && aged(s), tells(s, sockdiag.UnknownTimer):
		p.untold++
	case aged(s) && quiet < age:
		p.answered++
	}
	if s.Timer == sockdiag.TimerProbe {
		p.probing++
	}
	if tells(s, sockdiag.FieldMemory) {
		p.memory += uint64(s.Memory.SndQueued) + uint64(s.Memory.RcvAlloc)
		p.weighed++
	}
	if !owned(s) {
		p.peers.add(s.Remote.Addr())
	}
	if p.count+evidenceOf > limit+1 && len(p.rows) < evidenceOf {
		p.rows = append(p.rows, *s)
	}
}

func (l *leaking) findings() []Finding {
	var found []Finding
	for k, p := range l.piles {
		if limit := l.limit(k.state, k.owner.known); p.count > limit {
			found = append(found, l.finding(k, p, limit))
		}
	}
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Subject, b.Subject))
	})
	if f, ok := l.host.loggedOrphans(); ok {
		found = append(found, f)
	}
	return found
}

func (l *leaking) finding(k pileKey, p *pile, limit uint64) Finding {
	f := Finding{
		Detector: "Leaks", Severity: Warning, Confidence: Likely,
		Subject: fmt.Sprintf("%v, %v", k.state, k.service),
		Count:   p.count, Limit: limit,
		Evidence: Evidence{Sockets: p.rows},
	}
	switch {
	case k.state == sockdiag.CloseWait:
		l.notClosed(&f, k, p)
	case k.state == sockdiag.FinWait2 && k.owner.known:
		l.halfClosed(&f, k, p)
	case k.state == sockdiag.FinWait2:
		l.halfClosedOrphans(&f, k, p)
	default:
		l.unanswered(&f, k, p)
	}
	return f
}
