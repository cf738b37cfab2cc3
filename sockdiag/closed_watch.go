package sockdiag

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// watch is a Closed under way.
type watch struct {
	conn   *Conn
	opts   *ClosedOptions
	caller context.Context
	ctx    context.Context // ends with caller, or when owners cannot be told
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup

	// The owners by cookie, of the last dump and of the one before it. Nobody
	// writes to a map that is here.
	owners atomic.Pointer[[2]map[uint64]Owner]
}

func newWatch(ctx context.Context, c *Conn, o *ClosedOptions) *watch {
	w := &watch{conn: c, opts: o, caller: ctx}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.owners.Store(&[2]map[uint64]Owner{})
	return w
}

func (w *watch) listenConfig() nfnl.ListenConfig {
	return nfnl.ListenConfig{
		Groups:     w.opts.groups(),
		ReadBuffer: cmp.Or(w.opts.ReadBuffer, defaultClosedBuffer),
		Ready:      w.begin,
	}
}

// begin dumps once the groups are joined: a socket that the dump tells of cannot
// end unseen.
func (w *watch) begin() {
	if w.opts.Remember >= 0 {
		if err := w.refresh(); err != nil {
			w.cancel(err)
			return
		}
		if w.opts.Refresh > 0 {
			w.wait.Go(w.keepFresh)
		}
	}
	if w.opts.Ready != nil {
		w.opts.Ready()
	}
}

func (w *watch) keepFresh() {
	tick := time.NewTicker(w.opts.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.refresh(); err != nil {
			w.cancel(err)
			return
		}
	}
}

// stop returns when nothing of the watch runs any more.
func (w *watch) stop() {
	w.cancel(nil)
	w.wait.Wait()
}

func (w *watch) closed(b []byte) (ClosedSocket, error) {
	s, err := decodeClosed(b)
	if err != nil {
		return ClosedSocket{}, err
	}
	for _, generation := range w.owners.Load() {
		if owner, ok := generation[s.Cookie]; ok {
			return ClosedSocket{s, owner}, nil
		}
	}
	return ClosedSocket{Socket: s}, nil
}

// explain puts the error of a failed dump in the place of the cancellation that
// it caused.
func (w *watch) explain(err error) error {
	if cause := context.Cause(w.ctx); w.caller.Err() == nil && cause != nil {
		err = cause
	}
	var op *OpError
	if errors.As(err, &op) {
		return err
	}
	return &OpError{Op: "closed", Err: err}
}

// living are the states of sockets that can come to their end: not those of
// handshakes and of what is left of a connection in TimeWait.
const living = allStates &^ (1<<TimeWait | 1<<SynRecv | 1<<NewSynRecv)

func (w *watch) refresh() error {
	next := make(map[uint64]Owner)
	for _, p := range []Protocol{TCP, UDP} {
		if w.opts.Protocol != 0 && w.opts.Protocol != p {
			continue
		}
		if err := w.remember(next, Query{Protocol: p, Family: w.opts.Family, States: living}); err != nil {
			return err
		}
	}
	if w.opts.Processes != "" {
		if err := w.identify(next); err != nil {
			return err
		}
	}
	w.owners.Store(&[2]map[uint64]Owner{next, w.owners.Load()[0]})
	return nil
}

func (w *watch) remember(owners map[uint64]Owner, q Query) error {
	most := cmp.Or(w.opts.Remember, defaultRemember)
	now := time.Now()
	for s, err := range w.conn.All(w.ctx, q) {
		if errors.Is(err, errors.ErrUnsupported) && w.opts.Protocol == 0 {
			return nil // no udp_diag, and no events of UDP either
		}
		if err != nil {
			return err
		}
		if len(owners) >= most {
			return nil
		}
		owners[s.Cookie] = Owner{
			State: s.State, UID: s.UID, Inode: s.Inode, CgroupID: s.CgroupID, Mark: s.Mark, Seen: now,
		}
	}
	return nil
}

// identify looks for the processes.
func (w *watch) identify(owners map[uint64]Owner) error {
	inodes := make([]uint32, 0, len(owners))
	for _, o := range owners {
		inodes = append(inodes, o.Inode)
	}
	found, err := w.opts.Processes.Holders(w.ctx, inodes...)
	if err != nil {
		return err
	}
	for cookie, o := range owners {
		if of := found.Of(o.Inode); len(of) > 0 {
			o.Process = of[0].Process
			owners[cookie] = o
		}
	}
	return nil
}
