package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/snapshot"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// twice looks at this host, after another look at what counts.
func twice(ctx context.Context, over, log time.Duration) (*view, error) {
	v, err := live(ctx)
	if err == nil && over > 0 {
		before := v.Host.Counted()
		v.close()
		select {
		case <-time.After(over):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if v, err = live(ctx); err == nil {
			v.Host.Earlier = before
		}
	}
	if err == nil && log > 0 {
		v.log(log)
	}
	return v, err
}

// log takes CAP_SYSLOG on most machines, which the error names.
func (v *view) log(since time.Duration) {
	var err error
	if v.Host.Log, err = snapshot.KernelLog(v.Host.Now.Add(-since)); err != nil {
		v.note("not seen: %v", err)
	}
}

// live looks at this host.
func live(ctx context.Context) (*view, error) {
	v := &view{Snapshot: new(snapshot.Snapshot)}
	var err error
	if v.Host, err = snapshot.System(proc); err != nil {
		v.note("not seen: %v", err)
	}
	v.Host.Old = append(v.Host.Old, snapshot.Configured(os.DirFS("/"))...)
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			v.Host.Addrs = append(v.Host.Addrs, p.Addr())
		}
	}
	if err := errors.Join(err, v.sockets(ctx), v.flows(ctx)); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// sockets takes no privilege, but for the processes of other users.
func (v *view) sockets(ctx context.Context) error {
	diag, err := sockdiag.Dial(nil)
	if err != nil {
		return err
	}
	v.closers = append(v.closers, diag.Close)
	v.Sockets = diag.All(ctx, sockdiag.Query{Info: true, Memory: true})
	unreadable, err := snapshot.Owners(ctx, &v.Host, "/proc", diag.All(ctx, sockdiag.Query{}))
	if unreadable > 0 {
		v.note("not seen: the open files of %d processes: needs CAP_SYS_PTRACE (run as root)", unreadable)
	}
	return err
}

// flows takes CAP_NET_ADMIN, which the error names.
func (v *view) flows(ctx context.Context) error {
	ct, err := conntrack.Dial(nil)
	if err == nil {
		v.closers = append(v.closers, ct.Close)
		v.Flows = ct.All(ctx, nil)
		_, err = v.Sees()
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		v.note("not seen: flows: %v", err)
		v.Flows, err = nil, nil
	}
	return err
}
