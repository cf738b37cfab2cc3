package nflog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	gonflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Listen binds a group. When it returns, packets logged from now on are seen.
// A nil config is the zero Config.
//
// Errors: fs.ErrPermission without CAP_NET_ADMIN in the network namespace, or
// when another process (or another Reader) listens on the group there already;
// fs.ErrNotExist when Config.NetNS is gone; errors.ErrUnsupported when the
// kernel has no nfnetlink_log, or cannot do Config.Conntrack.
func Listen(cfg *Config) (*Reader, error) {
	c := cfg.withDefaults()
	var err error
	for range attempts {
		r := newReader()
		if r.source, err = listen(&c, r); err == nil {
			return r, nil
		}
		if !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	return nil, fmt.Errorf("nflog: group %d: %w", c.Group, err)
}

// attempts to bind a group: packets may crowd out the kernel's answers.
const attempts = 5

// source is a go-nflog socket at work.
type source struct {
	conn   connection
	cancel context.CancelFunc
}

// Close ends go-nflog's two goroutines. Its own Close is not used: that waits
// for a context it does not cancel, on a WaitGroup that its goroutine may
// still be adding to.
func (s *source) Close() error {
	err := s.conn.Close() // wakes the receiving one, and makes the kernel unbind the group
	s.cancel()            // ends the one that waits for the context
	return err
}

func listen(cfg *Config, r *Reader) (io.Closer, error) {
	nl, err := open(cfg)
	if err != nil {
		return nil, err
	}
	conn := nl.Con
	// Both try SO_RCVBUFFORCE first. The answers to Listen need room beside the
	// packets, however little of it is wanted later.
	if err := conn.SetReadBuffer(max(cfg.ReadBuffer, defaultReadBuffer)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	src, err := register(nl, conn, r)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(cfg.ReadBuffer); err != nil {
		r.fail(err)
		return nil, errors.Join(err, src.Close())
	}
	return src, nil
}

// register binds the group over conn and starts go-nflog.
func register(nl *gonflog.Nflog, conn connection, r *Reader) (*source, error) {
	g := &gate{conn: conn}
	nl.Con = netlink.NewConn(g, 0) // the port number is filled in behind the gate
	ctx, cancel := context.WithCancel(context.Background())
	src := &source{conn: conn, cancel: cancel}
	if err := nl.RegisterWithErrorFunc(ctx, r.hook, r.failed); err != nil {
		return nil, errors.Join(g.explain(err), src.Close())
	}
	return src, nil
}

// open makes go-nflog's socket in the network namespace.
func open(cfg *Config) (*gonflog.Nflog, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gc := &gonflog.Config{
		Group:    cfg.Group,
		Copymode: gonflog.CopyPacket,
		Bufsize:  cfg.Snaplen,
		QThresh:  cfg.Threshold,
		Timeout:  cfg.centiseconds(),
		Flags:    gonflog.FlagSeq,
	}
	if cfg.Conntrack {
		gc.Flags = gonflog.FlagConntrack // gate adds FlagSeq
	}
	ns, err := namespace(cfg.NetNS)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	if ns != nil {
		defer ns.Close()
		gc.NetNS = int(ns.Fd())
	}
	nl, err := gonflog.Open(gc)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf("kernel without nfnetlink (CONFIG_NETFILTER_NETLINK): %w: %w", err, errors.ErrUnsupported)
	case ns != nil && errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("enter network namespace %s: %w (needs CAP_SYS_ADMIN)", cfg.NetNS, err)
	}
	return nl, err
}

// namespace opens the namespace to be entered: nil when the thread is in it,
// which takes no capability.
func namespace(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	have, err1 := os.Stat("/proc/thread-self/ns/net")
	want, err2 := f.Stat()
	if err1 == nil && err2 == nil && os.SameFile(have, want) {
		return nil, f.Close()
	}
	return f, nil
}

// hook is go-nflog's HookFunc. It runs in go-nflog's receiving goroutine.
func (r *Reader) hook(a gonflog.Attribute) int {
	p, numbered := fromAttribute(&a)
	return stop(!r.deliver(p, numbered))
}

// failed is go-nflog's ErrorFunc. go-nflog goes on after every error that it
// is told to, a closed socket included, so only an overrun is one to go on
// after.
func (r *Reader) failed(err error) int {
	if errors.Is(err, unix.ENOBUFS) {
		return stop(!r.overrun())
	}
	r.fail(fmt.Errorf("nflog: %w", err))
	return stop(true)
}

// stop is how go-nflog's callbacks say whether to end.
func stop(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// explain says what the kernel's refusal of a request means. err is go-nflog's
// account of it, which has forgotten the errno.
func (g *gate) explain(err error) error {
	// The first request is about no group: it fails for all or for none
	// (nfnetlink_rcv, nfnetlink_rcv_msg).
	first := g.requests == 1
	is := func(errno syscall.Errno) bool { return errors.Is(g.refusal, errno) }
	switch {
	case g.refusal == nil:
		return err
	case first && is(unix.EPERM):
		return fmt.Errorf("needs CAP_NET_ADMIN in the network namespace (run as root, or setcap cap_net_admin+ep the program): %w", unix.EPERM)
	case first && is(unix.EINVAL):
		return fmt.Errorf("kernel without the module nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG): %w: %w", unix.EINVAL, errors.ErrUnsupported)
	case is(unix.EPERM), is(unix.EEXIST):
		return fmt.Errorf("another process listens on this group in this network namespace (see /proc/net/netfilter/nfnetlink_log): %w", unix.EPERM)
	case is(unix.EOPNOTSUPP):
		return fmt.Errorf("conntrack data in NFLOG needs a kernel with CONFIG_NETFILTER_NETLINK_GLUE_CT: %w", unix.EOPNOTSUPP)
	}
	return g.refusal
}
