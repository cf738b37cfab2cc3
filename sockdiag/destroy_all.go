package sockdiag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// DestroyOptions are how DestroyAll goes about it. The zero DestroyOptions, as a
// nil one, destroys all connections given, and nothing else.
type DestroyOptions struct {
	// Listeners also destroys sockets in Listen, with the connections that wait
	// for accept(2).
	Listeners bool
	// Unconnected also destroys sockets without a peer, such as a server's of
	// UDP.
	Unconnected bool
	// Orphans also destroys sockets that were closed and still send: FinWait1,
	// FinWait2, LastAck and Closing without an owner. Kernels before Linux 6.11
	// throw away what such a socket would send and then keep it for ever. They
	// are looked for afterwards, and Refused if they are still there.
	Orphans bool
	// DryRun destroys nothing: each socket is looked up, by its cookie, and
	// WouldDestroy is the outcome of those that are there. It takes no
	// privilege, and does not tell whether there is the one to destroy. A socket
	// given twice is counted twice.
	DryRun bool
	// Limit, if not 0, is how many sockets are destroyed (or, in a dry run,
	// would be) at most. Those of another outcome do not count. A negative one
	// is an error.
	Limit int
	// Outcome, if not nil, is called once for each socket, in order, with an
	// error if it was Refused or Protected.
	Outcome func(Socket, DestroyOutcome, error)
	// Progress, if not nil, is called with the report so far after every 128
	// sockets (64 in a dry run), and at the end.
	Progress func(DestroyReport)
}

func (o *DestroyOptions) allowed() sensitivity {
	var k sensitivity
	if o.Listeners {
		k |= listener
	}
	if o.Unconnected {
		k |= unconnected
	}
	if o.Orphans {
		k |= orphan
	}
	return k
}

// DestroyAll ends the sockets of a sequence, each as Destroy does, in batches:
// constant memory and a fraction of the time of as many calls of Destroy. The
// sequence may be a dump of this Conn that is being read.
//
// A socket that is refused or gone is no error, and shows in the report. Of one
// of TCP that is given twice, the second is Gone. Destroying stops with the
// first error of the conversation with the kernel, and at the first socket that
// the caller may not destroy (fs.ErrPermission): it may destroy none. What the
// report counts holds beside an error too.
func (c *Conn) DestroyAll(ctx context.Context, sockets iter.Seq[Socket], opts *DestroyOptions) (DestroyReport, error) {
	d := &destruction{conn: c, start: time.Now(), typ: destroySocket, done: Destroyed, most: destroyChunk}
	if opts != nil {
		d.opts = *opts
	}
	if d.opts.DryRun {
		d.typ, d.done, d.most = byFamily, WouldDestroy, lookChunk
	}
	err := d.all(ctx, sockets)
	d.progress()
	if err != nil {
		err = &OpError{Op: "destroy", Err: err}
	}
	return d.report, err
}

const (
	// destroyChunk sockets are held at a time: what nfnl sends in one datagram.
	destroyChunk = 128
	// lookChunk answers, a row of about 1,280 bytes of buffer and an
	// acknowledgement each, fit the default receive buffer.
	lookChunk = 64
)

// destruction is a DestroyAll under way.
type destruction struct {
	conn   *Conn
	opts   DestroyOptions
	start  time.Time
	report DestroyReport

	typ  uint16         // of the requests
	done DestroyOutcome // of a success
	most int            // sockets in the chunk

	// The chunk, and of each socket its outcome, 0 while there is none, and why.
	sockets  []Socket
	outcomes [destroyChunk]DestroyOutcome
	errs     [destroyChunk]error

	// The requests, the memory they are made in, and the sockets they are about.
	reqs []nfnl.Message
	data [destroyChunk][requestLen]byte
	of   []int
}

func (d *destruction) all(ctx context.Context, sockets iter.Seq[Socket]) error {
	if d.opts.Limit < 0 {
		return fmt.Errorf("a limit of %d sockets", d.opts.Limit)
	}
	for s := range sockets {
		if d.opts.Limit > 0 && d.spent() >= d.opts.Limit {
			d.report.Limited = true
			return nil
		}
		d.sockets = append(d.sockets, s)
		if len(d.sockets) == d.room() {
			if err := d.flush(ctx); err != nil {
				return err
			}
		}
	}
	return d.flush(ctx)
}

// spent is how many sockets were destroyed, or may have been.
func (d *destruction) spent() int {
	return d.report.Destroyed + d.report.WouldDestroy + d.report.Unknown
}

// room is how many sockets the chunk may have: no more than the limit leaves.
func (d *destruction) room() int {
	if d.opts.Limit == 0 {
		return d.most
	}
	return min(d.most, d.opts.Limit-d.spent())
}

// flush carries out the chunk, and tells what became of it.
func (d *destruction) flush(ctx context.Context) error {
	if len(d.sockets) == 0 {
		return nil
	}
	untold, err := Unknown, error(nil)
	if ctx.Err() != nil {
		untold, err = Skipped, nfnl.Ended(ctx)
	} else {
		err = d.carryOut(ctx)
	}
	if nfnl.NotSent(err) {
		untold = Skipped
	}
	for i := range d.sockets {
		d.tell(&d.sockets[i], cmp.Or(d.outcomes[i], untold), d.errs[i])
	}
	clear(d.outcomes[:])
	clear(d.errs[:])
	d.sockets = d.sockets[:0]
	d.progress()
	return err
}

// carryOut asks about the chunk. Its error ends DestroyAll.
func (d *destruction) carryOut(ctx context.Context) error {
	d.ask()
	var denied error
	err := d.conn.nl.Batch(ctx, d.reqs, func(i int, err error) {
		d.answer(d.of[i], err)
		if errors.Is(err, syscall.EPERM) {
			denied = d.errs[d.of[i]]
		}
	})
	return cmp.Or(err, d.settle(ctx, err), denied)
}

// ask makes the requests, and leaves out what must not be asked for.
func (d *destruction) ask() {
	d.reqs, d.of = d.reqs[:0], d.of[:0]
	allowed := d.opts.allowed()
	for i := range d.sockets {
		s := &d.sockets[i]
		if err := s.destroyable(allowed); err != nil {
			d.outcomes[i], d.errs[i] = Refused, err
			if errors.Is(err, ErrProtected) {
				d.outcomes[i] = Protected
			}
			continue
		}
		d.reqs = append(d.reqs, s.exact(d.typ, d.data[i][:]))
		d.of = append(d.of, i)
	}
}

// answer notes what an answer means.
func (d *destruction) answer(i int, err error) {
	switch {
	case err == nil:
		d.outcomes[i], d.errs[i] = d.done, nil
	case errors.Is(err, fs.ErrNotExist):
		d.outcomes[i], d.errs[i] = Gone, nil
	default:
		d.outcomes[i], d.errs[i] = Refused, d.sockets[i].explain(err)
	}
}

// settle looks again for the sockets whose answers are doubtful. Until it has,
// nothing is known of them.
func (d *destruction) settle(ctx context.Context, broken error) error {
	var doubtful []*Socket
	var at []int
	for _, i := range d.of {
		if d.doubtful(i) {
			d.outcomes[i] = 0
			doubtful, at = append(doubtful, &d.sockets[i]), append(at, i)
		}
	}
	if broken != nil || len(doubtful) == 0 {
		return nil
	}
	shown, err := d.conn.find(ctx, doubtful)
	if err != nil {
		return err
	}
	for n, s := range doubtful {
		d.answer(at[n], s.verdict(shown[s.Cookie], fs.ErrNotExist))
	}
	return nil
}

func (d *destruction) doubtful(i int) bool {
	switch d.outcomes[i] {
	case Gone:
		return d.sockets[i].doubtful(fs.ErrNotExist)
	case Destroyed:
		return d.sockets[i].doubtful(nil)
	}
	return false
}

func (d *destruction) tell(s *Socket, o DestroyOutcome, err error) {
	*d.report.count(o)++
	if d.opts.Outcome == nil {
		return
	}
	if err != nil {
		err = &OpError{Op: "destroy", Err: err}
	}
	d.opts.Outcome(*s, o, err)
}

func (d *destruction) progress() {
	d.report.Duration = time.Since(d.start)
	if d.opts.Progress != nil {
		d.opts.Progress(d.report)
	}
}
