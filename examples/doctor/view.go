package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/snapshot"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// proc is this host's.
var proc = os.DirFS("/proc")

// view is a host as far as it could be seen. A nil sequence could not.
type view struct {
	*snapshot.Snapshot
	notes   []string // what could not be seen, and why
	tracked bool     // there is an entry
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

// have is what detectors can rely on. Where nothing is tracked, that a flow is
// missing says nothing.
func (v *view) have() detect.Needs {
	var have detect.Needs
	if v.tracked {
		have |= detect.NeedFlows
	}
	if v.Sockets != nil {
		have |= detect.NeedSockets
	}
	if v.Host.Settings != (conntrack.Settings{}) || v.Host.Sysctls != (sockdiag.Settings{}) {
		have |= detect.NeedSettings
	}
	return have
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
	err = v.track()
	return v, err
}

// track looks whether there is an entry.
func (v *view) track() (err error) {
	if v.Flows == nil {
		v.note("not seen: flows")
		return nil
	}
	if v.tracked, err = any1(v.Flows); err == nil && !v.tracked {
		v.note("no connection is tracked here: the table is empty")
	}
	return err
}

// live looks at this host.
func live(ctx context.Context) (*view, error) {
	v := &view{Snapshot: new(snapshot.Snapshot)}
	var err error
	if v.Host, err = snapshot.System(proc); err != nil {
		v.note("not seen: %v", err)
	}
	v.Host.Old = append(v.Host.Old, snapshot.Configured(os.DirFS("/"))...)
	if err := errors.Join(v.addresses(), v.sockets(ctx), v.flows(ctx)); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *view) addresses() error {
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			v.Host.Addrs = append(v.Host.Addrs, p.Addr())
		}
	}
	return err
}

// sockets takes no privilege, but for the processes of other users.
func (v *view) sockets(ctx context.Context) error {
	diag, err := sockdiag.Dial(nil)
	if err != nil {
		return err
	}
	v.closers = append(v.closers, diag.Close)
	v.Sockets = diag.All(ctx, sockdiag.Query{Info: true})
	return v.owners(ctx, diag)
}

// owners looks for the processes of sockets, and how many files they have open.
func (v *view) owners(ctx context.Context, diag *sockdiag.Conn) error {
	var inodes []uint32
	for s, err := range diag.All(ctx, sockdiag.Query{}) {
		if err != nil {
			return err
		}
		inodes = append(inodes, s.Inode)
	}
	files := sockdiag.Proc("/proc")
	holders, err := files.Holders(ctx, inodes...)
	if err != nil {
		return err
	}
	if holders.Unreadable > 0 {
		v.note("not seen: the open files of %d processes: needs CAP_SYS_PTRACE (run as root)", holders.Unreadable)
	}
	v.Host.Holders = make(map[uint32][]sockdiag.Holder)
	processes := make(map[int]sockdiag.Process)
	for _, i := range inodes {
		for _, h := range holders.Of(i) {
			processes[h.Process.PID] = h.Process
		}
		if of := holders.Of(i); len(of) > 0 {
			v.Host.Holders[i] = of
		}
	}
	for _, pid := range slices.Sorted(maps.Keys(processes)) {
		d, err := files.Descriptors(pid)
		if err == nil { // it may have ended
			v.Host.Files = append(v.Host.Files, detect.OpenFiles{Process: processes[pid], Descriptors: d})
		}
	}
	return nil
}

// flows takes CAP_NET_ADMIN, which the error names.
func (v *view) flows(ctx context.Context) error {
	ct, err := conntrack.Dial(nil)
	if err != nil {
		v.note("not seen: flows: %v", err)
		return nil
	}
	v.closers = append(v.closers, ct.Close)
	v.Flows = ct.All(ctx, nil)
	err = v.track()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		v.note("not seen: flows: %v", err)
		v.Flows, err = nil, nil
	}
	return err
}

// any1 reports whether there is a row.
func any1[T any](rows iter.Seq2[T, error]) (bool, error) {
	for _, err := range rows {
		return err == nil, err
	}
	return false, nil
}
