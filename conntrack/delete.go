package conntrack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Delete removes one entry: the one that has the flow's original tuple, zone
// and ID. An entry that is gone already, or was replaced by one of another ID,
// is fs.ErrNotExist, and nothing is removed. A flow without an ID is refused.
// DeleteAll removes many in a fraction of the time.
//
// An entry of the same tuple that the kernel put where the earlier one was has
// the same ID: see Flow.ID.
func (c *Conn) Delete(ctx context.Context, flow Flow) error {
	req, err := encodeDelete(&flow)
	if err != nil {
		return opError("delete", err)
	}
	return opError("delete", c.nl.Do(ctx, req, nil))
}

// DeleteOptions are how DeleteAll goes about it. The zero DeleteOptions, as a nil
// one, removes all flows given.
type DeleteOptions struct {
	// DryRun removes nothing: each flow is looked up, and WouldDelete is the
	// outcome of those that are in the table with their ID. A flow that is given
	// twice is counted twice.
	DryRun bool
	// Limit, if not 0, is how many entries are removed (or, in a dry run, would
	// be) at most. Flows that are gone or refused do not count. A negative one is
	// an error.
	Limit int
	// Outcome, if not nil, is called once for each flow, in order, with an error
	// if it was Refused.
	Outcome func(Flow, DeleteOutcome, error)
	// Progress, if not nil, is called with the report so far after every 128
	// flows, and at the end.
	Progress func(DeleteReport)
}

// DeleteAll removes the entries of a sequence of flows, each as Delete does, in
// batches: constant memory, no allocation per flow, and a fraction of the time
// of as many calls of Delete. The sequence may be a dump of this Conn that is
// being read. Removing stops with the first error of the conversation with the
// kernel; a flow that is refused or gone is none, and shows in the report. Of a
// flow that is given twice, the second is Gone.
//
// Gone and Changed are told apart by a look-up of those flows that the kernel
// did not find. What the report counts holds beside an error too.
func (c *Conn) DeleteAll(ctx context.Context, flows iter.Seq[Flow], opts *DeleteOptions) (DeleteReport, error) {
	d := newDeletion(c, opts)
	err := d.all(ctx, flows)
	d.skip()
	d.report.Duration = time.Since(d.start)
	d.progress()
	return d.report, opError("delete", err)
}

// chunkSize flows are held at a time: what nfnl sends in one datagram.
const chunkSize = 128

// deletion is a DeleteAll under way.
type deletion struct {
	conn   *Conn
	opts   DeleteOptions
	start  time.Time
	report DeleteReport

	// The chunk, and of each flow its outcome, 0 while there is none, and why.
	flows    []Flow
	outcomes [chunkSize]DeleteOutcome
	errs     [chunkSize]error

	// The requests, the memory they are made in, and the flows they are about.
	reqs     []nfnl.Message
	builders [chunkSize]nfnl.Builder
	of       []int
}

func newDeletion(c *Conn, opts *DeleteOptions) *deletion {
	d := &deletion{conn: c, start: time.Now()}
	if opts != nil {
		d.opts = *opts
	}
	return d
}

func (d *deletion) all(ctx context.Context, flows iter.Seq[Flow]) error {
	if d.opts.Limit < 0 {
		return fmt.Errorf("a limit of %d entries", d.opts.Limit)
	}
	for f := range flows {
		if d.opts.Limit > 0 && d.done() >= d.opts.Limit {
			d.report.Limited = true
			return nil
		}
		d.flows = append(d.flows, f)
		if len(d.flows) == d.room() {
			if err := d.flush(ctx); err != nil {
				return err
			}
		}
	}
	return d.flush(ctx)
}

// done is how many entries were removed, or may have been.
func (d *deletion) done() int { return d.report.Deleted + d.report.WouldDelete + d.report.Unknown }

// room is how many flows the chunk may have: no more than the limit leaves.
func (d *deletion) room() int {
	if d.opts.Limit == 0 {
		return chunkSize
	}
	return min(chunkSize, d.opts.Limit-d.done())
}

// flush carries out the chunk, and tells what became of it.
func (d *deletion) flush(ctx context.Context) error {
	if len(d.flows) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return nfnl.Ended(ctx)
	}
	d.outcomes, d.errs = [chunkSize]DeleteOutcome{}, [chunkSize]error{}
	err := d.carryOut(ctx)
	untold := Unknown
	if nfnl.NotSent(err) {
		untold = Skipped
	}
	for i, f := range d.flows {
		d.tell(f, cmp.Or(d.outcomes[i], untold), d.errs[i])
	}
	d.flows = d.flows[:0]
	d.progress()
	return err
}

func (d *deletion) carryOut(ctx context.Context) error {
	if d.opts.DryRun {
		return d.look(ctx, 0, WouldDelete)
	}
	if err := d.remove(ctx); err != nil {
		return err
	}
	return d.look(ctx, Gone, Changed)
}

// remove sends the delete requests.
func (d *deletion) remove(ctx context.Context) error {
	d.ask(opDelete, 0)
	return d.conn.nl.Batch(ctx, d.reqs, func(i int, err error) {
		switch at := d.of[i]; {
		case err == nil:
			d.outcomes[at] = Deleted
		case errors.Is(err, fs.ErrNotExist):
			d.outcomes[at] = Gone
		default:
			d.outcomes[at], d.errs[at] = Refused, err
		}
	})
}

// look gets the entries of the flows whose outcome is such. Those that are there
// with their ID have the outcome same, those with another have Changed, those
// that are not there are Gone.
func (d *deletion) look(ctx context.Context, such, same DeleteOutcome) error {
	if d.ask(opGet, such); len(d.reqs) == 0 {
		return nil
	}
	var found Flow
	row := func(i int, m nfnl.Message) error {
		at := d.of[i]
		if err := decodeFlow(m.Data, &found); err != nil {
			return err
		}
		d.outcomes[at] = Changed
		if found.ID == d.flows[at].ID {
			d.outcomes[at] = same
		}
		return nil
	}
	return d.conn.nl.BatchRows(ctx, d.reqs, row, func(i int, err error) {
		switch at := d.of[i]; {
		case errors.Is(err, fs.ErrNotExist):
			d.outcomes[at] = Gone
		case err != nil && such == 0:
			d.outcomes[at], d.errs[at] = Refused, err
		}
	})
}

// ask makes the requests about the flows whose outcome is such. A flow that none
// can be made of is refused.
func (d *deletion) ask(op uint8, such DeleteOutcome) {
	d.reqs, d.of = d.reqs[:0], d.of[:0]
	for i := range d.flows {
		if d.outcomes[i] != such {
			continue
		}
		b := &d.builders[len(d.reqs)]
		if _, err := encodeEntry(b, op, &d.flows[i]); err != nil {
			d.outcomes[i], d.errs[i] = Refused, err
			continue
		}
		d.reqs, d.of = append(d.reqs, b.Message()), append(d.of, i)
	}
}

// skip tells of the flows that were taken and not tried.
func (d *deletion) skip() {
	for _, f := range d.flows {
		d.tell(f, Skipped, nil)
	}
	d.flows = nil
}

func (d *deletion) tell(f Flow, o DeleteOutcome, err error) {
	*d.report.count(o)++
	if d.opts.Outcome != nil {
		d.opts.Outcome(f, o, opError("delete", err))
	}
}

func (d *deletion) progress() {
	if d.opts.Progress != nil {
		d.report.Duration = time.Since(d.start)
		d.opts.Progress(d.report)
	}
}
