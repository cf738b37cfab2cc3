package nflog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	gonflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// goNflog reads each group through a go-nflog of its own.
type goNflog struct {
	reader  *Reader
	sockets []*goSocket

	// events has no buffer: a packet that is not yet asked for holds up its
	// socket, so that it is the kernel's queue that fills and the loss has a
	// number.
	events chan event

	end   sync.Once
	ended chan struct{} // closed when no event follows
	err   error         // why, once ended
}

// event is a packet, or the error that goes in its place.
type event struct {
	packet Packet
	err    error
}

// goSocket is a go-nflog at work on one group.
type goSocket struct {
	all    *goNflog
	group  sequence
	conn   connection
	cancel context.CancelFunc
}

func newGoNflog(r *Reader) *goNflog {
	return &goNflog{reader: r, events: make(chan event), ended: make(chan struct{})}
}

func listenGoNflog(cfg *Config, r *Reader) (source, error) {
	n := newGoNflog(r)
	for _, g := range cfg.Groups {
		if err := n.listen(cfg, g); err != nil {
			return nil, errors.Join(fmt.Errorf("group %d: %w", g, err), n.Close())
		}
	}
	return n, nil
}

func (n *goNflog) listen(cfg *Config, group uint16) error {
	nl, err := open(cfg, group)
	if err != nil {
		return err
	}
	conn := nl.Con
	// Both try SO_RCVBUFFORCE first. The answers to Listen need room beside the
	// packets, however little of it is wanted later.
	if err := conn.SetReadBuffer(max(cfg.ReadBuffer, defaultReadBuffer)); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := n.register(nl, conn, cfg, group); err != nil {
		return err
	}
	return conn.SetReadBuffer(cfg.ReadBuffer)
}

// register binds the group over conn and starts go-nflog.
func (n *goNflog) register(nl *gonflog.Nflog, conn connection, cfg *Config, group uint16) error {
	g := &gate{conn: conn, flags: flagSequence | flagGlobal}
	if cfg.Conntrack != WithoutConntrack {
		g.flags |= flagConntrack
	}
	nl.Con = netlink.NewConn(g, 0) // the port number is filled in behind the gate
	ctx, cancel := context.WithCancel(context.Background())
	s := &goSocket{all: n, group: sequence{group: group}, conn: conn, cancel: cancel}
	if err := nl.RegisterWithErrorFunc(ctx, s.hook, s.failed); err != nil {
		return errors.Join(g.explain(err), s.close())
	}
	n.sockets = append(n.sockets, s)
	return nil
}

// open makes go-nflog's socket in the network namespace.
func open(cfg *Config, group uint16) (*gonflog.Nflog, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gc := &gonflog.Config{
		Group:    group,
		Copymode: gonflog.CopyPacket,
		Bufsize:  cfg.Snaplen,
		QThresh:  cfg.Threshold,
		Timeout:  cfg.centiseconds(),
		Flags:    gonflog.FlagSeq, // gate adds the others
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

// hook is go-nflog's HookFunc. It runs in go-nflog's receiving goroutine: a
// packet, and before it what its number reveals, is handed over before the next
// one is read.
func (s *goSocket) hook(a gonflog.Attribute) int {
	p, numbered := fromAttribute(&a)
	p.Group = s.group.group
	if numbered {
		if lost := s.group.advance(p.Seq); lost != nil && !s.all.send(event{err: lost}) {
			return stop(true)
		}
	}
	return stop(!s.all.send(event{packet: p}))
}

// failed is go-nflog's ErrorFunc. go-nflog goes on after every error that it
// is told to, a closed socket included, so only an overrun is one to go on
// after.
func (s *goSocket) failed(err error) int {
	if errors.Is(err, unix.ENOBUFS) {
		return stop(!s.all.send(event{err: &Lost{Overrun: true}}))
	}
	s.all.fail(fmt.Errorf("nflog: group %d: %w", s.group.group, err))
	return stop(true)
}

// stop is how go-nflog's callbacks say whether to end.
func stop(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// close ends go-nflog's two goroutines. Its own Close is not used: that waits
// for a context it does not cancel, on a WaitGroup that its goroutine may
// still be adding to.
func (s *goSocket) close() error {
	err := s.conn.Close() // wakes the receiving one, and makes the kernel unbind the group
	s.cancel()            // ends the one that waits for the context
	return err
}

// send hands an event over. It waits until it is taken and reports false when
// no more are wanted.
func (n *goNflog) send(e event) bool {
	select {
	case n.events <- e:
		return true
	case <-n.ended:
		return false
	}
}

// fail ends the sequence. The first reason stays.
func (n *goNflog) fail(err error) {
	n.end.Do(func() {
		n.err = err
		close(n.ended)
	})
}

func (n *goNflog) packets(ctx context.Context, yield func(Packet, error) bool) {
	for {
		e, err := n.next(ctx)
		if err != nil {
			yield(Packet{}, err)
			return
		}
		if !yield(e.packet, e.err) {
			return
		}
	}
}

// next waits for an event; the error is a final one.
func (n *goNflog) next(ctx context.Context) (event, error) {
	if err := n.over(ctx); err != nil {
		return event{}, err
	}
	select {
	case e := <-n.events:
		return e, nil
	case <-n.ended:
	case <-ctx.Done():
	}
	return event{}, n.over(ctx)
}

func (n *goNflog) over(ctx context.Context) error {
	if err := n.reader.over(ctx); err != nil {
		return err
	}
	select {
	case <-n.ended:
		return n.err
	default:
		return nil
	}
}

// Close may be called at any time, and twice.
func (n *goNflog) Close() error {
	n.fail(net.ErrClosed)
	var errs []error
	for _, s := range n.sockets {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// explain says what the kernel's refusal of a request means. err is go-nflog's
// account of it, which has forgotten the errno.
func (g *gate) explain(err error) error {
	switch {
	case g.refusal == nil:
		return err
	case errors.Is(g.refusal, unix.ENOBUFS):
		return fmt.Errorf("%w: %w", nfnl.ErrOverrun, g.refusal)
	// The first request is about no group: it fails for all or for none
	// (nfnetlink_rcv, nfnetlink_rcv_msg).
	case g.requests == 1 && errors.Is(g.refusal, unix.EPERM):
		return fmt.Errorf("%w: %w", errNoCapability, unix.EPERM)
	}
	return explain(g.refusal)
}
