package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Config is what Watch listens to. Groups or Install is required.
type Config struct {
	// NetNS is the path of the network namespace; empty is the caller's.
	NetNS string
	// Proc is the namespace's /proc, for the settings. Nil is
	// os.DirFS("/proc") if NetNS is empty, and no settings otherwise: what
	// /proc/sys/net shows depends on the thread that reads it.
	Proc fs.FS
	// Groups are the NFLOG groups of the rules that log packets before they
	// are refused, and of those that log ICMP errors.
	Groups []uint16
	// Reasons reads the kernel's own reasons for INVALID packets, from group
	// 0. Package nflog says which sysctls make it write them.
	Reasons bool
	// Install has Watch make the rules itself that it needs, and remove them when
	// it ends. Nil changes nothing on the host.
	Install *Install
	// Wait is how long a verdict waits at most for what comes on other
	// sockets: the packet's reason, its ICMP error, the end of its entry; 0
	// is 250 ms.
	Wait time.Duration
	// Repeat is how often the verdict on one flow is yielded again, with its
	// count, while its packets go on being refused for the same cause; 0 is
	// 10 s.
	Repeat time.Duration
	// Flows is how many refused flows are remembered; 0 is 4096. Beyond it the
	// one refused longest ago is forgotten, and its count begins anew.
	Flows int
	// Ready, if not nil, is called once everything is listened to.
	Ready func()
}

func (cfg Config) withDefaults() Config {
	if cfg.Wait <= 0 {
		cfg.Wait = 250 * time.Millisecond
	}
	if cfg.Repeat <= 0 {
		cfg.Repeat = 10 * time.Second
	}
	if cfg.Flows <= 0 {
		cfg.Flows = 4096
	}
	if cfg.Proc == nil && cfg.NetNS == "" {
		cfg.Proc = os.DirFS("/proc")
	}
	return cfg
}

func (cfg *Config) check() error {
	switch {
	case cfg == nil || len(cfg.Groups) == 0 && cfg.Install == nil:
		return errors.New("reject: Config.Groups is empty: name the NFLOG groups that log refused packets, or set Install")
	case cfg.Reasons && slices.Contains(cfg.Groups, 0):
		return errors.New("reject: Config.Groups has group 0, where the kernel writes its reasons (Config.Reasons): " +
			"let the rules log to another")
	}
	for i, g := range cfg.Groups {
		if slices.Contains(cfg.Groups[:i], g) {
			return fmt.Errorf("reject: Config.Groups has group %d twice", g)
		}
	}
	return nil
}

// Watch yields a verdict for each refused flow: at its first refused packet,
// again when the cause or its confidence changes, and then every Config.Repeat
// with the number of packets refused so far.
//
// *nflog.Lost and conntrack.ErrOverrun say that packets or events were missed,
// and *Degraded what could not be installed; ranging goes on after them. Any
// other error is the last. It takes CAP_NET_ADMIN.
//
// A flow's entry that ends while Watch runs is remembered, which is what makes
// the verdict on a forgotten connection certain: start it before the trouble.
func Watch(ctx context.Context, cfg *Config) iter.Seq2[Verdict, error] {
	return func(yield func(Verdict, error) bool) {
		if err := cfg.check(); err != nil {
			yield(Verdict{}, err)
			return
		}
		in, err := install(ctx, cfg)
		if err != nil {
			yield(Verdict{}, err)
			return
		}
		defer in.close() //nolint:errcheck // told with the last error, if that is yielded
		w, err := open(&in.cfg)
		if err != nil {
			yield(Verdict{}, errors.Join(err, in.close()))
			return
		}
		w.in, w.flows.traced = in, in.tracing()
		ctx, cancel := context.WithCancel(ctx)
		defer w.close(cancel)
		w.run(ctx, w.start(ctx), in.last(yield))
	}
}

// watch is a running Watch. Its goroutines only read sockets and send to
// signals; all state belongs to run.
type watch struct {
	cfg     Config
	ct      *conntrack.Conn
	diag    *sockdiag.Conn
	readers []*nflog.Reader
	signals chan signal
	wg      sync.WaitGroup

	flows   *flows
	reasons *recent[reasonKey, string]
	ended   *recent[conntrack.Tuple, *Ended]
	rules   *recent[reasonKey, Rule]
	in      *installed
}

// signal is something that a goroutine read, or the error that ended it.
type signal struct {
	packet nflog.Packet
	reason bool // the packet is of group 0
	event  conntrack.Event
	trace  traced
	err    error
}

func open(cfg *Config) (_ *watch, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	w := &watch{
		cfg: cfg.withDefaults(), signals: make(chan signal, 64),
		reasons: newRecent[reasonKey, string](1024), ended: newRecent[conntrack.Tuple, *Ended](1 << 16),
		rules: newRecent[reasonKey, Rule](1024),
	}
	w.flows = newFlows(w.cfg.Flows, w.cfg.Reasons)
	w.in = &installed{}
	defer func() {
		if err != nil {
			w.close(func() {})
		}
	}()
	if w.ct, err = conntrack.Dial(&conntrack.Config{NetNS: cfg.NetNS}); err != nil {
		return nil, fmt.Errorf("reject: %w", err)
	}
	if w.diag, err = sockdiag.Dial(&sockdiag.Config{NetNS: cfg.NetNS}); err != nil {
		return nil, fmt.Errorf("reject: %w", err)
	}
	groups := cfg.Groups
	if cfg.Reasons {
		groups = append([]uint16{0}, groups...)
	}
	for _, g := range groups {
		r, err := nflog.Listen(&nflog.Config{NetNS: cfg.NetNS, Groups: []uint16{g}})
		if err != nil {
			return nil, fmt.Errorf("reject: %w", err)
		}
		w.readers = append(w.readers, r)
	}
	return w, nil
}

func (w *watch) close(cancel func()) {
	cancel()
	for _, r := range w.readers {
		_ = r.Close() // nothing can be lost by it
	}
	if w.ct != nil {
		_ = w.ct.Close()
	}
	if w.diag != nil {
		_ = w.diag.Close()
	}
	w.wg.Wait()
}

// start begins to read. The channel it returns is closed once the kernel sends
// all that is asked for.
func (w *watch) start(ctx context.Context) <-chan struct{} {
	for i, r := range w.readers {
		w.wg.Go(func() {
			for p, err := range r.Packets(ctx) {
				if !w.send(ctx, signal{packet: p.Clone(), reason: w.cfg.Reasons && i == 0, err: err}) {
					return
				}
			}
		})
	}
	ready := make(chan struct{})
	var deaf atomic.Int32 // sources to which nobody listens yet
	deaf.Store(1)
	if w.in.tracing() {
		deaf.Add(1)
	}
	listening := func() {
		if deaf.Add(-1) == 0 {
			close(ready)
		}
	}
	opts := &conntrack.EventOptions{
		Types: []conntrack.EventType{conntrack.EventDestroy},
		Ready: listening,
	}
	w.wg.Go(func() {
		for e, err := range w.ct.Events(ctx, opts) {
			if !w.send(ctx, signal{event: e, err: err}) {
				return
			}
		}
	})
	if w.in.tracing() {
		w.wg.Go(func() {
			for t, err := range w.in.traces(ctx, listening) {
				if !w.send(ctx, signal{trace: t, err: err}) {
					return
				}
			}
		})
	}
	return ready
}

func (w *watch) send(ctx context.Context, s signal) bool {
	select {
	case w.signals <- s:
		return true
	case <-ctx.Done():
		return false
	}
}

// run takes what is read until an error ends it, and yields what is due.
func (w *watch) run(ctx context.Context, ready <-chan struct{}, yield func(Verdict, error) bool) {
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		if !w.in.tell(yield) {
			return
		}
		due.Reset(min(w.flows.untilDue(time.Now()), w.in.untilDue(time.Now())))
		select {
		case <-ctx.Done():
			yield(Verdict{}, context.Cause(ctx))
			return
		case <-ready:
			ready = nil
			if w.cfg.Ready != nil {
				w.cfg.Ready()
			}
		case s := <-w.signals:
			if s.err != nil && !yield(Verdict{}, fmt.Errorf("reject: %w", s.err)) {
				return
			}
			if s.err != nil && !goesOn(s.err) {
				return
			}
			w.in.lost(s.err, time.Now())
			if s.err == nil {
				w.take(ctx, s)
			}
		case <-due.C:
		}
		w.takeDue(ctx, time.Now())
		for _, v := range w.flows.due(time.Now(), w.cfg.Repeat) {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// goesOn reports an error that is a fact and not an end.
func goesOn(err error) bool {
	return errors.Is(err, nflog.ErrLost) || errors.Is(err, conntrack.ErrOverrun) || errors.Is(err, nft.ErrOverrun)
}
