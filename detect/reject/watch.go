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
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/internal/netns"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Config is what Watch listens to. Groups or Install is required.
type Config struct {
	// NetNS is the path of the network namespace; empty is the caller's.
	NetNS string
	// Proc is the namespace's /proc, for settings and counters. Nil is
	// os.DirFS("/proc") if NetNS is empty, and else what a thread reads that
	// enters the namespace, which takes CAP_SYS_ADMIN.
	Proc fs.FS
	// Groups are the NFLOG groups of the rules that log packets before they
	// are refused, and of those that log ICMP errors and RSTs.
	Groups []uint16
	// Reasons reads the kernel's own reasons for INVALID packets, from group
	// 0. Package nflog says which sysctls make it write them.
	Reasons bool
	// Install has Watch make the rules itself that it needs, and remove them when
	// it ends. Nil changes nothing on the host.
	Install *Install
	// Wait is how long a verdict waits at most for what comes from other
	// sources: the packet's reason, its ICMP error, the end of its entry; 0
	// is 250 ms.
	Wait time.Duration
	// Repeat is how often the verdict on one flow is yielded again, with its
	// count, while its packets go on being refused for the same cause; 0 is
	// 10 s. A flow is forgotten after 60 times as long without a packet.
	Repeat time.Duration
	// Flows is how many refused flows are remembered, at some 1,000 bytes each
	// and 2,000 with an entry and a socket; 0 is 16384. Beyond it the one
	// refused longest ago is forgotten, and its count begins anew. While there
	// is none of which all was told, new ones share a count.
	Flows int
	// SourceFlows is how many flows of one source, an address of IPv4 or a /64
	// of IPv6, are told apart; 0 is 128. Further ones share one verdict, with
	// a count and Verdict.Ports.
	SourceFlows int
	// Lookups is how many flows a second are looked up in the connection table
	// and among the sockets; 0 is 2000. What is more is told without, as
	// Verdict.Missing says.
	Lookups int
	// Ready, if not nil, is called once everything is listened to.
	Ready func()
}

// or is v, or the default if v is not set.
func or[T int | time.Duration](v, standard T) T {
	if v <= 0 {
		return standard
	}
	return v
}

func (cfg Config) withDefaults() Config {
	cfg.Wait = or(cfg.Wait, 250*time.Millisecond)
	cfg.Repeat = or(cfg.Repeat, 10*time.Second)
	cfg.Flows = or(cfg.Flows, 1<<14)
	cfg.SourceFlows = or(cfg.SourceFlows, 128)
	cfg.Lookups = or(cfg.Lookups, 2000)
	if cfg.Proc == nil && cfg.NetNS == "" {
		cfg.Proc = os.DirFS("/proc")
	}
	return cfg
}

func (cfg *Config) flowLimits() flowLimits {
	return flowLimits{wait: cfg.Wait, repeat: cfg.Repeat, flows: cfg.Flows, perSource: cfg.SourceFlows, reasons: cfg.Reasons}
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
// with the number of packets refused so far, if there were more. It yields one,
// too, when the kernel's counters tell that packets are dropped, or errors held
// back, without a word.
//
// A *Lost says that packets or other evidence were missed, and a *Degraded what
// could not be installed; ranging goes on after them. Any other error is the
// last; before it, all counts are told that were not yet. Watch takes CAP_NET_ADMIN.
//
// A flow's entry that ends while Watch runs is remembered: the last 32,768 that
// ended alive, half as many if they are translated, and as many others, in at
// most 50 MB. That is what makes the verdict on a forgotten connection certain:
// start it before the trouble.
func Watch(ctx context.Context, cfg *Config) iter.Seq2[Verdict, error] {
	return func(yield func(Verdict, error) bool) {
		in, err := install(ctx, cfg)
		if err != nil {
			yield(Verdict{}, err)
			return
		}
		defer in.close() //nolint:errcheck // told before the last error, if that is yielded
		w, err := open(&in.cfg)
		if err != nil {
			in.last(yield, func() {})(Verdict{}, err)
			return
		}
		w.in, w.flows.tracing = in, in.tracing()
		ctx, cancel := context.WithCancel(ctx)
		end := sync.OnceFunc(func() { w.close(cancel) })
		defer end()
		w.run(ctx, w.start(ctx), in.last(yield, end))
	}
}

// watch is a running Watch. Its goroutines read sockets and look tables up, run
// yields; what they share is state.
type watch struct {
	cfg      Config
	ct       *conntrack.Conn
	diag     *sockdiag.Conn
	rules    *nft.Conn
	thread   *netns.Thread // in Config.NetNS; nil without
	refusals *nflog.Reader // of Config.Groups
	why      *nflog.Reader // of group 0; nil without Config.Reasons
	in       *installed
	wg       sync.WaitGroup

	// toLook and toTell wake the goroutine that looks up, and run.
	toLook, toTell chan struct{}

	hosting hosting

	mu sync.Mutex
	state
}

func newWatch(cfg Config) *watch {
	return &watch{cfg: cfg, toLook: make(chan struct{}, 1), toTell: make(chan struct{}, 1), state: newState(&cfg)}
}

func open(cfg *Config) (_ *watch, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	w := newWatch(cfg.withDefaults())
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
	if w.rules, err = nft.Dial(cfg.NetNS); err != nil {
		return nil, fmt.Errorf("reject: %w", err)
	}
	if w.refusals, err = w.listen(cfg.Groups...); err != nil {
		return nil, fmt.Errorf("reject: %w", err)
	}
	if cfg.Reasons {
		// Apart, so that a flood of reasons does not push out packets.
		if w.why, err = w.listen(0); err != nil {
			return nil, fmt.Errorf("reject: %w", err)
		}
	}
	w.enter()
	return w, nil
}

// enter starts a thread in the namespace. That it may not be entered, while its
// sockets could be opened, shows in verdicts as missing settings.
func (w *watch) enter() {
	if w.cfg.NetNS == "" {
		return
	}
	if t, err := netns.Enter(w.cfg.NetNS); err == nil {
		w.thread = t
		if w.cfg.Proc == nil {
			w.cfg.Proc = t
		}
	}
}

func (w *watch) close(cancel func()) {
	cancel()
	for _, r := range []*nflog.Reader{w.refusals, w.why} {
		if r != nil {
			_ = r.Close() // nothing can be lost by it
		}
	}
	if w.ct != nil {
		_ = w.ct.Close()
	}
	if w.diag != nil {
		_ = w.diag.Close()
	}
	if w.rules != nil {
		_ = w.rules.Close()
	}
	w.wg.Wait()
	if w.thread != nil {
		w.thread.Close()
	}
}

// wake makes a goroutine that waits for c look at the state again.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run yields what is due until ctx or an error ends it, and then what is left.
func (w *watch) run(ctx context.Context, ready <-chan struct{}, yield func(Verdict, error) bool) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, more := w.yield(yield)
		if !more {
			return
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			w.fail(context.Cause(ctx))
		case <-ready:
			ready = nil
			if w.cfg.Ready != nil {
				w.cfg.Ready()
			}
		case <-w.toTell:
		case <-timer.C:
		}
	}
}

// atOnce is how many verdicts are made before they are yielded.
const atOnce = 32

// yield yields what is due, and returns when the next is, or that there is no
// more to come.
func (w *watch) yield(yield func(Verdict, error) bool) (wait time.Duration, more bool) {
	for {
		verdicts, losses, wait, err := w.take(time.Now())
		for _, note := range w.in.takeNotes() {
			if !yield(Verdict{}, note) {
				return 0, false
			}
		}
		for i := range losses {
			if !yield(Verdict{}, fmt.Errorf("reject: %w", &losses[i])) {
				return 0, false
			}
		}
		for _, v := range verdicts {
			if !yield(v, nil) {
				return 0, false
			}
		}
		switch {
		case len(verdicts) > 0:
		case err != nil:
			yield(Verdict{}, err)
			return 0, false
		default:
			return wait, true
		}
	}
}
