package detect

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// AcceptQueue finds listeners whose queue of connections that wait for
// accept(2) is full, and says whether the application does not accept or the
// queue is too short. The kernel lets one more wait than the backlog, and then
// drops every SYN and the last packet of every handshake: the clients see a
// service that does not answer, or one that does not speak.
//
// It tells the two causes apart by how long the connections have waited, for
// which their tcp_info is wanted (Query.Info); these are the sockets that are
// ESTABLISHED, or CLOSE_WAIT when the client has given up, and that no process
// has. Listeners of one port by SO_REUSEPORT have a finding each, and what
// waits is told of all of them together.
//
// A queue that is full while nothing has waited for long is graded lower: it may
// be over in an instant. Where none is full, Host.Counters tell whether one was. It keeps a row of each listener that is full, and of
// what waits, which the backlogs bound, the sources and a few rows; and it knows
// 65536 listeners, and as many local addresses and ports.
type AcceptQueue struct {
	// Stuck is how long a connection may wait before the application is held
	// for stuck, or too slow; 0 is a second.
	Stuck time.Duration
}

// Name returns "AcceptQueue".
func (AcceptQueue) Name() string { return "AcceptQueue" }

// Look gathers the listeners that are full and the connections that wait.
func (d AcceptQueue) Look(h *Host) Look {
	q := &queues{host: h, stuck: cmp.Or(d.Stuck, time.Second), waiting: make(map[place]*waiting)}
	return Look{Socket: q.socket, Findings: q.findings}
}

type queues struct {
	host      *Host
	stuck     time.Duration
	full      []sockdiag.Socket
	listeners map[place]int // by the place where they listen
	waiting   map[place]*waiting
}

// place is where a socket listens or has its local end. An IPv6 socket with an
// IPv4 address is at another place than an IPv4 socket.
type place struct {
	family sockdiag.Family
	local  netip.AddrPort
	device uint32
}

func placeOf(s *sockdiag.Socket) place { return place{s.Family, s.Local, s.Interface} }

// waiting is the connections at a place that wait for accept(2).
type waiting struct {
	count, gone uint64 // gone have been closed by the client
	untold      uint64 // without tcp_info
	oldest      time.Duration
	peers       peers
	rows        []sockdiag.Socket
}

func (q *queues) socket(s *sockdiag.Socket) {
	if !isTCP(s) {
		return
	}
	switch s.State {
	case sockdiag.Listen:
		q.listener(s)
	case sockdiag.Established, sockdiag.CloseWait:
		if ownerless(s) {
			q.wait(s)
		}
	}
}

func (q *queues) listener(s *sockdiag.Socket) {
	if q.listeners == nil {
		q.listeners = make(map[place]int)
	}
	if len(q.listeners) < maxPiles {
		q.listeners[placeOf(s)]++
	}
	if n, known := q.host.backlog(s); known && s.AcceptQueue > 0 && s.AcceptQueue >= n && len(q.full) < maxPiles {
		q.full = append(q.full, *s)
	}
}

// backlog is that of a listener or, where a row of text does not tell it, the
// most that it can be: net.core.somaxconn.
func (h *Host) backlog(s *sockdiag.Socket) (n uint32, known bool) {
	if !s.Has(sockdiag.UnknownBacklog) {
		return s.Backlog, true
	}
	return uint32(min(h.Sysctls.Somaxconn, math.MaxUint32)), h.Sysctls.Has(somaxconn)
}

func (q *queues) wait(s *sockdiag.Socket) {
	at := placeOf(s)
	w := q.waiting[at]
	if w == nil {
		if len(q.waiting) == maxPiles {
			return
		}
		w = new(waiting)
		q.waiting[at] = w
	}
	w.add(s)
}

func (w *waiting) add(s *sockdiag.Socket) {
	w.count++
	if s.State == sockdiag.CloseWait {
		w.gone++
	}
	if tells(s, sockdiag.FieldInfo) {
		w.oldest = max(w.oldest, waited(s))
	} else {
		w.untold++
	}
	w.peers.add(s.Remote.Addr())
	if len(w.rows) < evidenceOf {
		w.rows = append(w.rows, *s)
	}
}

// waited is how long ago the handshake ended. The application has sent nothing
// yet, and what never was counts from then (tcp_create_openreq_child).
func waited(s *sockdiag.Socket) time.Duration {
	return max(s.Info.LastDataSent, s.Info.LastDataRecv)
}

func (q *queues) findings() []Finding {
	var found []Finding
	for i := range q.full {
		l := &q.full[i]
		found = append(found, q.finding(l, q.of(l)))
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Subject, b.Subject))
	})
	if f, ok := q.host.overflows(); ok && len(found) == 0 {
		found = append(found, f)
	}
	return found
}

// of gathers what waits for a listener: what arrived where no other listens
// more exactly.
func (q *queues) of(l *sockdiag.Socket) *waiting {
	at := placeOf(l)
	var all waiting
	var places []place
	for p := range q.waiting {
		if q.takes(at, p) {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, func(a, b place) int { return a.local.Compare(b.local) })
	for _, p := range places {
		all.join(q.waiting[p])
	}
	return &all
}

// takes reports whether what arrives at a place belongs to the listener: the
// kernel prefers one bound to the address, and of these one bound to the
// interface (__inet_lookup_listener, compute_score).
func (q *queues) takes(listener, at place) bool {
	for _, addr := range []netip.Addr{at.local.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		for _, device := range []uint32{at.device, 0} {
			p := place{at.family, netip.AddrPortFrom(addr, at.local.Port()), device}
			if q.listeners[p] > 0 {
				return p == listener
			}
		}
	}
	return false
}

func (w *waiting) join(o *waiting) {
	w.count += o.count
	w.gone += o.gone
	w.untold += o.untold
	w.oldest = max(w.oldest, o.oldest)
	w.peers.join(&o.peers)
	w.rows = append(w.rows, o.rows[:min(len(o.rows), evidenceOf-len(w.rows))]...)
}

func (q *queues) finding(l *sockdiag.Socket, w *waiting) Finding {
	backlog, _ := q.host.backlog(l)
	f := Finding{
		Detector: "AcceptQueue", Severity: Warning, Confidence: Likely,
		Subject: "listener " + l.Local.String(),
		Count:   uint64(l.AcceptQueue), Limit: uint64(backlog),
		Evidence: Evidence{Sockets: append([]sockdiag.Socket{*l}, w.rows...)},
	}
	most := ""
	if l.Has(sockdiag.UnknownBacklog) {
		most = "at most "
		f.Evidence.Settings = []Setting{{somaxconn, fmt.Sprint(backlog)}}
	}
	f.Cause = fmt.Sprintf("%d connections wait for accept(2), with a backlog of %s%d: the queue is full", l.AcceptQueue, most, backlog)
	if l.AcceptQueue > backlog {
		f.Severity = Critical
		f.Cause += ", and new ones are dropped"
	} else {
		f.Cause += " at the next one"
	}
	q.together(&f, l)
	w.tell(&f)
	drops(&f, l)
	q.advise(&f, l, w)
	return f
}

// together tells listeners of one place apart.
func (q *queues) together(f *Finding, l *sockdiag.Socket) {
	if n := q.listeners[placeOf(l)]; n > 1 {
		f.Subject += fmt.Sprintf(", cookie %d", l.Cookie)
		f.Cause += fmt.Sprintf("; it is one of %d listeners there (SO_REUSEPORT)", n)
		f.Evidence.Missing = append(f.Evidence.Missing, "which of the listeners each connection waits for")
	}
}

// tell tells who waits, and since when.
func (w *waiting) tell(f *Finding) {
	if w.count == 0 {
		return
	}
	sources := w.peers.above(0)
	f.Cause += fmt.Sprintf("; there wait %s", w.peers.text(sources))
	if len(sources) > 3 {
		f.Cause += " and others"
	}
	if w.gone > 0 {
		f.Cause += fmt.Sprintf("; the clients of %d have given up", w.gone)
	}
	if top := w.peers.above(w.count / 2); len(top) > 0 && w.count > 1 {
		f.Sources = top
	}
}

func drops(f *Finding, l *sockdiag.Socket) {
	if !l.Has(sockdiag.FieldMemory) {
		f.Evidence.Missing = append(f.Evidence.Missing, "how many handshakes were dropped (Query.Memory)")
		return
	}
	f.Cause += fmt.Sprintf("; %d handshakes were dropped since it began to listen", l.Memory.Drops)
}
