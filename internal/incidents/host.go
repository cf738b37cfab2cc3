package incidents

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// host is a lab host with a firewall and with this project's eyes.
type host struct {
	*lab.Host
	addr netip.Addr
	ct   *conntrack.Conn
	diag *sockdiag.Conn

	installs bool // its firewall logs nothing, and Watch installs what it needs

	mu       sync.Mutex
	verdicts []reject.Verdict
	watchErr error
	watching sync.WaitGroup
}

func newHost(h *lab.Host, ipv6 bool) (*host, error) {
	addr := h.Addr4()
	if ipv6 {
		addr = h.Addr6()
	}
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: h.NetNS()})
	if err != nil {
		return nil, err
	}
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: h.NetNS()})
	if err != nil {
		return nil, errors.Join(err, ct.Close())
	}
	return &host{Host: h, addr: addr, ct: ct, diag: diag}, nil
}

func (h *host) close() error {
	h.watching.Wait()
	return errors.Join(h.ct.Close(), h.diag.Close())
}

// watches is what a Watch of the host listens to.
func (h *host) watches() (*reject.Config, error) {
	cfg := &reject.Config{NetNS: h.NetNS(), Proc: h.FS(), Wait: time.Second}
	if h.installs {
		cfg.Install = &reject.Install{}
		return cfg, nil
	}
	cfg.Groups, cfg.Reasons = []uint16{group}, true
	// The kernel's own reasons for INVALID packets, for both families.
	return cfg, h.set("net.netfilter.nf_conntrack_log_invalid", "255",
		"net.netfilter.nf_log.2", "nfnetlink_log", "net.netfilter.nf_log.10", "nfnetlink_log")
}

// watch begins to collect verdicts, and returns once nothing is missed.
func (h *host) watch(ctx context.Context) error {
	cfg, err := h.watches()
	if err != nil {
		return err
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	cfg.Ready = func() { close(ready) }
	h.watching.Go(func() {
		defer close(ended)
		for v, err := range reject.Watch(ctx, cfg) {
			h.mu.Lock()
			switch {
			case err == nil:
				h.verdicts = append(h.verdicts, v)
			case ctx.Err() == nil && !errors.Is(err, conntrack.ErrOverrun) && !errors.Is(err, nflog.ErrLost):
				h.watchErr = err
			}
			h.mu.Unlock()
		}
	})
	select {
	case <-ready:
		return nil
	case <-ended:
		return h.watchErr
	}
}

// verdict returns the latest verdict on a flow.
func (h *host) verdict(flow conntrack.Tuple) (reject.Verdict, bool, error) {
	return h.latest(func(v *reject.Verdict) bool { return v.Flow == flow })
}

// latest returns the latest verdict that is wanted.
func (h *host) latest(wanted func(*reject.Verdict) bool) (reject.Verdict, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.verdicts) - 1; i >= 0; i-- {
		if wanted(&h.verdicts[i]) {
			return h.verdicts[i], true, h.watchErr
		}
	}
	return reject.Verdict{}, false, h.watchErr
}

// look reads what the detectors want to know. Sockets are read before flows.
func (h *host) look(ctx context.Context) (detect.Host, error) {
	sockets, err := h.diag.Snapshot(ctx, sockdiag.Query{Info: true})
	if err != nil {
		return detect.Host{}, err
	}
	flows, err := h.ct.Snapshot(ctx, nil)
	if err != nil {
		return detect.Host{}, err
	}
	settings, err := conntrack.ReadSettings(h.FS())
	if err != nil {
		return detect.Host{}, err
	}
	usage, err1 := h.ct.Usage(ctx)
	stats, err2 := h.ct.Stats(ctx)
	if err := errors.Join(err1, err2); err != nil {
		return detect.Host{}, err
	}
	return detect.Host{
		Now: time.Now(), Sockets: sockets.Sockets, Flows: flows.Flows, Settings: settings, Usage: usage, Stats: stats,
		Addrs: []netip.Addr{h.Addr4(), h.Addr6()},
	}, nil
}

// socket returns the host's socket that sends packets of the tuple.
func (h *host) socket(ctx context.Context, sent conntrack.Tuple) (sockdiag.Socket, bool, error) {
	q := sockdiag.Query{LocalPort: sent.SrcPort, RemotePort: sent.DstPort, Info: true}
	for s, err := range h.diag.All(ctx, q) {
		if err != nil {
			return sockdiag.Socket{}, false, err
		}
		if detect.SocketTuple(&s) == sent {
			return s, true, nil
		}
	}
	return sockdiag.Socket{}, false, nil
}

// set sets sysctls: name, value, name, value, …
func (h *host) set(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := h.SetSysctl(pairs[i], pairs[i+1]); err != nil {
			return fmt.Errorf("%s: %w", h.Name(), err)
		}
	}
	return nil
}
