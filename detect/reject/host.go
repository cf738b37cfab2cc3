package reject

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// surroundings is what is known of the host, whatever the packet. It is read at
// most once in hostAge, and never changed.
type surroundings struct {
	at        time.Time
	counted   time.Time // before counters were read
	settings  Lookup[conntrack.Settings]
	usage     Lookup[conntrack.Usage]
	counters  Lookup[Counters]
	rules     Lookup[Rules]
	own       map[netip.Addr]bool // nil is not known
	kernel    string
	listening time.Time
	noDiag    map[sockdiag.Protocol]bool // protocols whose sockets cannot be seen
}

const hostAge = 500 * time.Millisecond

// hosting keeps the last surroundings.
type hosting struct {
	mu    sync.Mutex
	last  *surroundings
	rules ruling
}

// surroundings are read anew if they are older than hostAge.
func (w *watch) surroundings(ctx context.Context) *surroundings {
	w.hosting.mu.Lock()
	defer w.hosting.mu.Unlock()
	now := time.Now()
	last := w.hosting.last
	if last != nil && now.Sub(last.at) < hostAge {
		return last
	}
	h := &surroundings{at: now, counted: now, own: w.addresses(), rules: w.hosting.rules.read(ctx, w.rules, w.cfg.Proc)}
	if w.cfg.Proc != nil {
		if s, err := conntrack.ReadSettings(w.cfg.Proc); err == nil {
			h.settings = Found(s)
		}
		release, _ := fs.ReadFile(w.cfg.Proc, "sys/kernel/osrelease") // empty is not known
		h.kernel = strings.TrimSpace(string(release))
	}
	if u, err := w.ct.Usage(ctx); err == nil {
		h.usage = Found(u)
	}
	if last != nil {
		h.noDiag = last.noDiag
	} else {
		h.noDiag = w.blind(ctx)
	}
	h.counters = w.lately(ctx)
	w.mu.Lock()
	h.listening = w.listening
	w.mu.Unlock()
	w.hosting.last = h
	return h
}

// recount is the surroundings with what was counted until now.
func (w *watch) recount(ctx context.Context, old *surroundings) *surroundings {
	h := *old
	h.counted, h.counters = time.Now(), w.lately(ctx)
	w.hosting.mu.Lock()
	defer w.hosting.mu.Unlock()
	if w.hosting.last == old {
		w.hosting.last = &h
	}
	return &h
}

// blind finds the protocols of which this kernel shows no sockets: of these,
// not to find one means nothing.
func (w *watch) blind(ctx context.Context) map[sockdiag.Protocol]bool {
	none := make(map[sockdiag.Protocol]bool)
	for _, p := range []sockdiag.Protocol{sockdiag.TCP, sockdiag.UDP} {
		for _, err := range w.diag.All(ctx, sockdiag.Query{Protocol: p, LocalPort: 1}) {
			none[p] = err != nil && !errors.Is(err, context.Canceled)
			break
		}
	}
	return none
}

// diag reports whether sockets of the protocol can be seen.
func (h *surroundings) diag(p sockdiag.Protocol) bool { return !h.noDiag[p] }

// addresses are this host's own, or nil.
func (w *watch) addresses() map[netip.Addr]bool {
	var addrs []net.Addr
	var err error
	switch {
	case w.cfg.NetNS == "":
		addrs, err = net.InterfaceAddrs()
	case w.thread != nil:
		err = w.thread.Do(func() (err error) { addrs, err = net.InterfaceAddrs(); return err })
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	own := make(map[netip.Addr]bool)
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr()] = true
		}
	}
	return own
}

// tell adds what is known of the host to the evidence on a packet.
func (h *surroundings) tell(e *Evidence) {
	e.Settings, e.Usage, e.Counters, e.Rules = h.settings, h.usage, h.counters, h.rules
	e.Kernel, e.Listening = h.kernel, h.listening
	if h.own != nil {
		dst := e.Packet.Value.Dst
		e.Local = Found(h.own[dst] || dst.IsLoopback())
	}
}
