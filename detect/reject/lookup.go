package reject

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// lookUp looks flows up in the tables as they are refused, before the tables
// change, until ctx ends.
func (w *watch) lookUp(ctx context.Context) {
	l := newLooker(w)
	for {
		w.mu.Lock()
		flows := w.flows.toLook(64)
		w.mu.Unlock()
		if len(flows) == 0 {
			select {
			case <-w.toLook:
				continue
			case <-ctx.Done():
				return
			}
		}
		l.lookUp(ctx, flows)
		if ctx.Err() != nil {
			return
		}
	}
}

// looker is what the goroutine of lookUp keeps to itself.
type looker struct {
	*watch
	budget    budget
	host      *surroundings // the batch's
	survey    survey
	listeners map[uint64]*sockdiag.Socket // that host has, shared by flows
}

func newLooker(w *watch) *looker {
	return &looker{watch: w, budget: budget{rate: float64(w.cfg.Lookups)}}
}

// lookUp looks flows up, and gives them back.
func (l *looker) lookUp(ctx context.Context, flows []*refused) {
	now := time.Now()
	if h := l.surroundings(ctx); h != l.host {
		l.host, l.listeners = h, make(map[uint64]*sockdiag.Socket)
	}
	seen := make([]sighting, len(flows))
	l.mu.Lock()
	for i, r := range flows {
		seen[i] = r.seen
	}
	l.mu.Unlock()
	results := make([]findings, len(flows))
	for i := range flows {
		results[i] = findings{host: l.host, hurried: !l.budget.spend(now)}
		if !results[i].hurried {
			l.tables(ctx, &seen[i], &results[i])
		}
	}
	l.around(ctx, seen, results)
	l.mu.Lock()
	for i := range flows {
		results[i].ended = l.ended.get(keyOf(&seen[i].packet))
		results[i].answer = l.answer(PacketTuple(seen[i].packet))
	}
	l.mu.Unlock()
	l.recountFor(ctx, results)
	l.mu.Lock()
	defer l.mu.Unlock()
	now = time.Now() // to look took its time
	for i, r := range flows {
		l.flows.lookedUp(r, results[i], now)
	}
	wake(l.toTell)
}

// recountFor reads the counters anew if they are too old for one of the results.
func (l *looker) recountFor(ctx context.Context, results []findings) {
	if !slices.ContainsFunc(results, func(f findings) bool { return f.outcounted() }) {
		return
	}
	l.host = l.recount(ctx, l.host)
	for i := range results {
		results[i].host = l.host
	}
}

// tables looks a packet up in the connection table and among the sockets. What
// cannot be looked up stays NotLooked, which the verdict shows as missing.
func (l *looker) tables(ctx context.Context, s *sighting, f *findings) {
	tuple := PacketTuple(s.packet)
	f.entry = l.entry(ctx, tuple)
	if f.entry.result == Absent {
		// As it is on one side of a translation, the packet's tuple is neither
		// of the entry's two, but the opposite of one.
		f.entry = l.entry(ctx, tuple.Invert())
	}
	if s.here {
		l.sockets(ctx, s, f)
	}
}

func (l *looker) entry(ctx context.Context, tuple conntrack.Tuple) finding[conntrack.Flow] {
	flow, err := l.ct.Get(ctx, tuple, 0)
	switch {
	case err == nil:
		return found(&flow)
	case errors.Is(err, fs.ErrNotExist):
		return absent[conntrack.Flow]()
	}
	return finding[conntrack.Flow]{}
}

// sockets looks for the socket of the packet's connection on this host, and, if
// the packet may begin one, for the listener that would take it.
func (l *looker) sockets(ctx context.Context, s *sighting, f *findings) {
	p := sockdiag.Protocol(s.packet.Proto)
	if p != sockdiag.TCP && p != sockdiag.UDP || !s.packet.Have.Has(packet.HavePorts) {
		return
	}
	remote := netip.AddrPortFrom(s.packet.Src, s.packet.SrcPort)
	local := netip.AddrPortFrom(s.packet.Dst, s.packet.DstPort)
	came := s.refusal != ICMPReceived && s.refusal != ResetReceived
	if !came {
		local, remote = remote, local
	}
	f.socket = l.socket(ctx, p, local, remote)
	listens := f.listener
	if f.socket.result == Present && unconnected(f.socket.value) {
		listens, f.socket = f.socket, absent[sockdiag.Socket]()
	} else if f.socket.result == Present {
		listens = l.socket(ctx, p, local, nobody(remote.Addr()))
	} else {
		listens.result = f.socket.result
	}
	if begins := p == sockdiag.UDP || s.packet.Flags.Has(packet.SYN) && !s.packet.Flags.Has(packet.ACK); came && begins {
		f.listener = l.shared(listens)
	}
}

// unconnected reports a socket without a peer.
func unconnected(s *sockdiag.Socket) bool {
	return s.Remote.Port() == 0 && s.Remote.Addr().IsUnspecified()
}

// nobody is the peer of a socket that has none.
func nobody(like netip.Addr) netip.AddrPort {
	if like.Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

func (l *looker) socket(ctx context.Context, p sockdiag.Protocol, local, remote netip.AddrPort) finding[sockdiag.Socket] {
	if !l.host.diag(p) {
		return finding[sockdiag.Socket]{}
	}
	s, err := l.diag.Get(ctx, p, local, remote)
	switch {
	case err == nil:
		return found(&s)
	case errors.Is(err, fs.ErrNotExist):
		return absent[sockdiag.Socket]()
	}
	return finding[sockdiag.Socket]{}
}

// shared gives all flows to one listener the same value.
func (l *looker) shared(f finding[sockdiag.Socket]) finding[sockdiag.Socket] {
	if f.result != Present {
		return f
	}
	if have := l.listeners[f.value.Cookie]; have != nil {
		f.value = have
	} else {
		l.listeners[f.value.Cookie] = f.value
	}
	return f
}

// budget allows so many a second, and saves them for one. It is a token bucket;
// a clock that goes back gives nothing.
type budget struct {
	rate, left float64
	at         time.Time
}

func (b *budget) spend(now time.Time) bool {
	if b.at.IsZero() {
		b.left = b.rate
	} else {
		b.left = min(b.rate, b.left+max(now.Sub(b.at).Seconds(), 0)*b.rate)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
