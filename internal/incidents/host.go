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
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// group is the NFLOG group of the hosts' firewalls.
const group = 50

// host is a lab host with a firewall and with this project's eyes.
type host struct {
	*lab.Host
	addr netip.Addr
	ct   *conntrack.Conn
	diag *sockdiag.Conn

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

// firewall lets in what belongs to a connection, new connections to the given
// ports, and nothing else: the rest is logged with its state and rejected.
// ICMP errors are logged on their way in and out.
func (h *host) firewall(ctx context.Context, ports ...uint16) error {
	log := func(prefix string) *nft.Log { return &nft.Log{Group: group, Prefix: prefix} }
	input := []nft.Rule{
		{InIface: "lo", Verdict: nft.Accept},
		{Proto: nft.ICMP, Log: log("icmp ")},
		{Proto: nft.ICMPv6, Log: log("icmp ")},
		{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
	}
	for _, p := range ports {
		input = append(input, nft.Rule{CTState: nft.New, Proto: nft.TCP, DstPort: p,
			TCPFlags: nft.TCPFlags{Mask: nft.FIN | nft.SYN | nft.RST | nft.ACK, Value: nft.SYN}, Verdict: nft.Accept})
	}
	input = append(input,
		nft.Rule{CTState: nft.Invalid, Log: log("invalid ")},
		nft.Rule{CTState: nft.New, Log: log("new ")},
		nft.Rule{Verdict: nft.RejectAdminProhibited})
	return h.Rules(ctx, nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: input},
		{Name: "output", Hook: nft.Output, Rules: []nft.Rule{
			{Proto: nft.ICMP, Log: log("icmp ")}, {Proto: nft.ICMPv6, Log: log("icmp ")},
		}},
	}})
}

// watch begins to collect verdicts, and returns once nothing is missed.
func (h *host) watch(ctx context.Context) error {
	// The kernel's own reasons for INVALID packets, for both families.
	for name, value := range map[string]string{
		"net.netfilter.nf_conntrack_log_invalid": "255",
		"net.netfilter.nf_log.2":                 "nfnetlink_log",
		"net.netfilter.nf_log.10":                "nfnetlink_log",
	} {
		if err := h.SetSysctl(name, value); err != nil {
			return err
		}
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	cfg := &reject.Config{NetNS: h.NetNS(), Proc: h.FS(), Groups: []uint16{group}, Reasons: true, Wait: time.Second,
		Ready: func() { close(ready) }}
	h.watching.Go(func() {
		defer close(ended)
		for v, err := range reject.Watch(ctx, cfg) {
			h.mu.Lock()
			if err == nil {
				h.verdicts = append(h.verdicts, v)
			} else if ctx.Err() == nil {
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
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.verdicts) - 1; i >= 0; i-- {
		if h.verdicts[i].Flow == flow {
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
	return detect.Host{
		Now: time.Now(), Sockets: sockets.Sockets, Flows: flows.Flows, Settings: settings,
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
