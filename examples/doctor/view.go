package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/snapshot"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// proc is this host's.
var proc = os.DirFS("/proc")

// view is a host as far as it could be seen. A nil sequence could not.
type view struct {
	*snapshot.Snapshot
	notes   []string // what could not be seen, and why
	closers []func() error
}

func (v *view) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

func (v *view) close() {
	for _, c := range v.closers {
		_ = c() // only read from
	}
}

// see looks at a snapshot or at this host, by way of a snapshot if it is to be
// recorded.
func see(ctx context.Context, o options) (*view, error) {
	switch {
	case o.from != "" && o.record != "":
		return nil, errors.New("-from and -record exclude each other")
	case o.from != "":
		return open(o.from)
	}
	v, err := live(ctx)
	if err != nil || o.record == "" {
		return v, err
	}
	defer v.close()
	if err := snapshot.Record(o.record, v.Host, proc, v.Sockets, v.Flows); err != nil {
		return nil, err
	}
	recorded, err := open(o.record)
	if err != nil {
		return nil, err
	}
	recorded.notes = append(v.notes, recorded.notes...)
	return recorded, nil
}

// open looks at a snapshot.
func open(dir string) (*view, error) {
	s, err := snapshot.Open(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	v := &view{Snapshot: s}
	for _, f := range s.Files {
		if f.Unused != "" {
			v.note("not read: %s (%s): %s", f.Name, f.Kind, f.Unused)
		}
	}
	return v, nil
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
