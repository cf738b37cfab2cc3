package cut

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Cutter ends connections. Without Conntrack entries are left, and without
// Sockets sockets. It is as safe for concurrent use as they are.
type Cutter struct {
	Conntrack *conntrack.Conn
	Sockets   *sockdiag.Conn
	// Proc is the /proc of the network namespace, for the addresses of this
	// host; nil is os.DirFS("/proc").
	Proc fs.FS
}

// Options are what is cut besides the connections that a source made to this
// host.
type Options struct {
	// Outbound cuts those that this host made to the source, too.
	Outbound bool
	// Forwarded deletes the entries of connections that are not this host's. See
	// the package's comment for what they may be good for.
	Forwarded bool
	// DryRun ends nothing: the Report says what would be.
	DryRun bool
}

// Report is what was done, step by step.
type Report struct {
	DryRun bool
	// Sockets is the first step and Flows the second.
	Sockets sockdiag.DestroyReport
	Flows   conntrack.DeleteReport
	// Left is what a second look found. In a dry run there is none.
	Left Left
}

// Left is what the sources still have.
type Left struct {
	// Sockets and Flows are connections that should be gone: made since, or
	// refused.
	Sockets, Flows int
	// OutboundSockets and OutboundFlows are connections that this host made, and
	// Forwarded the entries of those that are not its own.
	OutboundSockets, OutboundFlows, Forwarded int
}

// Done reports that nothing is left that should be gone.
func (r Report) Done() bool { return !r.DryRun && r.Left.Sockets == 0 && r.Left.Flows == 0 }

// String is the report in a line.
func (r Report) String() string {
	s := fmt.Sprintf("sockets: %v; flows: %v", r.Sockets, r.Flows)
	if r.DryRun {
		return "dry run: " + s
	}
	return s + fmt.Sprintf("; left: %d sockets, %d flows; left alone: %d sockets and %d flows of this host's own, %d flows forwarded",
		r.Left.Sockets, r.Left.Flows, r.Left.OutboundSockets, r.Left.OutboundFlows, r.Left.Forwarded)
}

// Sources ends the connections of the prefixes: their sockets, then their
// entries, and looks again. It can be called again and then finds less to do.
// An error of one step keeps none of the others from being tried. It takes
// CAP_NET_ADMIN.
func (c *Cutter) Sources(ctx context.Context, opts *Options, prefixes ...netip.Prefix) (Report, error) {
	if opts == nil {
		opts = &Options{}
	}
	report := Report{DryRun: opts.DryRun}
	found, err := c.look(ctx, prefixes)
	if err != nil {
		return report, err
	}
	sockets, flows := found.doomed(opts)
	var errs [3]error
	if len(sockets) > 0 {
		report.Sockets, errs[0] = c.Sockets.DestroyAll(ctx, slices.Values(sockets), &sockdiag.DestroyOptions{DryRun: opts.DryRun, Orphans: true})
	}
	if len(flows) > 0 {
		report.Flows, errs[1] = c.Conntrack.DeleteAll(ctx, slices.Values(flows), &conntrack.DeleteOptions{DryRun: opts.DryRun})
	}
	if !opts.DryRun {
		report.Left, errs[2] = c.left(ctx, opts, prefixes)
	}
	return report, errors.Join(errs[:]...)
}

// left looks again.
func (c *Cutter) left(ctx context.Context, opts *Options, prefixes []netip.Prefix) (Left, error) {
	found, err := c.look(ctx, prefixes)
	if err != nil {
		return Left{}, err
	}
	sockets, flows := found.doomed(opts)
	l := Left{Sockets: len(sockets), Flows: len(flows)}
	if !opts.Outbound {
		l.OutboundSockets, l.OutboundFlows = len(found.sockets[outbound]), len(found.flows[outbound])
	}
	if !opts.Forwarded {
		l.Forwarded = len(found.flows[forwarded])
	}
	return l, nil
}
