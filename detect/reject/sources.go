package reject

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// listen binds groups to one socket.
func (w *watch) listen(groups ...uint16) (*nflog.Reader, error) {
	return nflog.Listen(&nflog.Config{
		NetNS: w.cfg.NetNS, Groups: groups, ReadBuffer: 8 << 20,
		// In such bunches a packet costs a fraction of the time, and waits for
		// others no longer than a tick.
		Threshold: 32, FlushInterval: 10 * time.Millisecond,
	})
}

// start begins to read. The channel it returns is closed once the kernel sends
// all that is asked for.
func (w *watch) start(ctx context.Context) <-chan struct{} {
	w.wg.Go(func() { w.packets(ctx, w.refusals, Packets, w.packet) })
	if w.why != nil {
		w.wg.Go(func() { w.packets(ctx, w.why, Reasons, w.reason) })
	}
	ready := make(chan struct{})
	var deaf atomic.Int32 // sources to which nobody listens yet, and counters not read
	listening := func() {
		if deaf.Add(-1) == 0 {
			close(ready)
		}
	}
	deaf.Add(2)
	if w.in.tracing() {
		deaf.Add(1)
		w.wg.Go(func() { w.traces(ctx, listening) })
	}
	w.wg.Go(func() { w.ends(ctx, listening) })
	w.wg.Go(func() { w.lookUp(ctx) })
	w.wg.Go(func() { w.countAll(ctx, listening) })
	return ready
}

// packets takes the packets of a reader.
func (w *watch) packets(ctx context.Context, r *nflog.Reader, source Source, take func(*nflog.Packet, time.Time) error) {
	for p, err := range r.Packets(ctx) {
		if err == nil {
			err = take(&p, time.Now())
		}
		if err != nil && !w.goesOn(ctx, source, p.Group, err) {
			return
		}
	}
}

// ends takes the ends of entries.
func (w *watch) ends(ctx context.Context, ready func()) {
	opts := &conntrack.EventOptions{Types: []conntrack.EventType{conntrack.EventDestroy}, Ready: func() {
		w.mu.Lock()
		w.listening = time.Now()
		w.mu.Unlock()
		ready()
	}}
	for e, err := range w.ct.Events(ctx, opts) {
		if err == nil {
			w.end(e, time.Now())
		} else if !w.goesOn(ctx, Ends, 0, err) {
			return
		}
	}
}

// errNotIP is a logged packet of which nothing can be said.
var errNotIP = errors.New("no IP packet, or cut before its addresses end")

// goesOn notes an error of a source, and reports one that is a fact and not an
// end. What only the context did is not told.
func (w *watch) goesOn(ctx context.Context, s Source, group uint16, err error) bool {
	l := Lost{Source: s, Group: group, Err: err}
	var lost *nflog.Lost
	switch {
	case errors.As(err, &lost):
		l.Count, l.Group = lost.Count, lost.Group
		w.lostPairs(s, lost)
	case errors.Is(err, errNotIP):
		l.Count = 1
	case errors.Is(err, conntrack.ErrOverrun), errors.Is(err, nft.ErrOverrun):
	case ctx.Err() != nil:
		return false
	default:
		w.fail(fmt.Errorf("reject: %w", err))
		return false
	}
	w.lost(l)
	return true
}
