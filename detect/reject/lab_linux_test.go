package reject

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const (
	group    = 50
	patience = 40 * time.Second
	// slow is a Config.Wait for what is told in time on a slow machine too. Only
	// what never comes is waited for as long.
	slow = 3 * time.Second
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func logged(prefix string) *nft.Log { return &nft.Log{Group: group, Prefix: prefix} }

// refusing are rules that let in what belongs to a connection and new
// connections to the ports; the rest is logged and becomes of it what verdict
// says.
func refusing(verdict nft.Verdict, ports ...uint16) []nft.Rule {
	rules := []nft.Rule{
		{Proto: nft.ICMP, Log: logged("")}, {Proto: nft.ICMPv6, Log: logged("")},
		{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
	}
	for _, p := range ports {
		rules = append(rules, nft.Rule{CTState: nft.New, Proto: nft.TCP, DstPort: p,
			TCPFlags: nft.TCPFlags{Mask: nft.FIN | nft.SYN | nft.RST | nft.ACK, Value: nft.SYN}, Verdict: nft.Accept})
	}
	return append(rules,
		nft.Rule{CTState: nft.Invalid, Proto: nft.TCP, Log: logged("invalid ")},
		nft.Rule{CTState: nft.New, Proto: nft.TCP, Log: logged("new ")},
		nft.Rule{Proto: nft.TCP, Verdict: verdict})
}

// firewall sets the rules of one hook, and logs the ICMP errors that go out.
func firewall(t testing.TB, h *lab.Host, hook nft.Hook, rules []nft.Rule, more ...nft.Chain) {
	t.Helper()
	chains := []nft.Chain{{Name: "refuse", Hook: hook, Rules: rules}}
	if hook != nft.Output {
		chains = append(chains, nft.Chain{Name: "out", Hook: nft.Output, Rules: []nft.Rule{
			{Proto: nft.ICMP, Log: logged("")}, {Proto: nft.ICMPv6, Log: logged("")},
		}})
	}
	must(t, h.Rules(within(t), nft.Table{Family: nft.INet, Name: "filter", Chains: append(chains, more...)}))
}

// watching is a Watch whose verdicts are collected.
type watching struct {
	t    *testing.T
	host *lab.Host

	mu       sync.Mutex
	verdicts []Verdict
}

// watchHost watches until the test ends. Nothing may be lost.
func watchHost(t *testing.T, h *lab.Host, cfg Config) *watching {
	t.Helper()
	w := &watching{t: t, host: h}
	ready := make(chan struct{})
	cfg.NetNS, cfg.Groups = h.NetNS(), []uint16{group}
	cfg.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	var end error
	done.Go(func() {
		for v, err := range Watch(ctx, &cfg) {
			w.mu.Lock()
			if err == nil {
				w.verdicts = append(w.verdicts, v)
			} else {
				end = err
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		if !errors.Is(end, context.Canceled) {
			t.Errorf("%s: Watch ended with %v", h.Name(), end)
		}
		if t.Failed() {
			for _, v := range w.verdicts {
				t.Logf("%s: %v: %+v", h.Name(), v, v.Facts)
			}
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("Watch does not become ready")
	}
	return w
}

// on returns the verdicts on a flow so far.
func (w *watching) on(flow conntrack.Tuple) []Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.verdicts), func(v Verdict) bool { return v.Flow != flow })
}

// waitFor waits for the nth verdict on a flow, from 1.
func (w *watching) waitFor(flow conntrack.Tuple, n int) Verdict {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if vs := w.on(flow); len(vs) >= n {
			return vs[n-1]
		}
	}
	w.t.Fatalf("%s: no verdict %d on %v; all: %v", w.host.Name(), n, flow, w.verdicts)
	return Verdict{}
}

// waitCount waits for a verdict on a flow that tells of n packets, and none of
// more.
func (w *watching) waitCount(flow conntrack.Tuple, n int) Verdict {
	w.t.Helper()
	var v Verdict
	for i := 1; v.Count < n; i++ {
		v = w.waitFor(flow, i)
	}
	if v.Count > n {
		w.t.Errorf("%s: %d packets, want %d", w.host.Name(), v.Count, n)
	}
	return v
}

// is checks a verdict.
func is(t *testing.T, v Verdict, rule string, cause Cause, confidence ...any) {
	t.Helper()
	if v.Rule != rule || v.Cause != cause || len(confidence) > 0 && !slices.Contains(confidence, any(v.Confidence)) {
		t.Errorf("got %s %v, want %s %s %v\nfacts: %q\nmissing: %q", v.Rule, v, rule, cause, confidence, v.Facts, v.Missing)
	}
}

// addresses runs a test for both families, with what gives a host's address.
func addresses(t *testing.T, test func(*testing.T, func(*lab.Host) netip.Addr)) {
	for name, addr := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).Addr4, "IPv6": (*lab.Host).Addr6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, addr)
		})
	}
}

// sendSYN sends the first packet of a connection, without a socket for it.
func sendSYN(t testing.TB, h *lab.Host, tuple conntrack.Tuple) {
	t.Helper()
	must(t, send(h, tuple.Dst, slices.Values([][]byte{tcpSegment(tuple, packet.SYN, 1, 0)})))
}

// tcpSegment is a TCP packet without data, as a raw socket takes it.
func tcpSegment(t conntrack.Tuple, flags packet.TCPFlags, seq, ack uint32) []byte {
	b := []byte{
		byte(t.SrcPort >> 8), byte(t.SrcPort), byte(t.DstPort >> 8), byte(t.DstPort),
		0, 0, 0, 0, 0, 0, 0, 0, 0x50, byte(flags), 0x10, 0, 0, 0, 0, 0,
	}
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	binary.BigEndian.PutUint16(b[16:], checksum(slices.Concat(t.Src.AsSlice(), t.Dst.AsSlice(),
		[]byte{0, byte(t.Proto), 0, byte(len(b))}, b)))
	return b
}

// send sends segments to an address.
func send(h *lab.Host, dst netip.Addr, segments iter.Seq[[]byte]) error {
	return h.Do(func() error {
		family, to := unix.AF_INET, unix.Sockaddr(nil)
		if dst.Is4() {
			to = &unix.SockaddrInet4{Addr: dst.As4()}
		} else {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: dst.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for s := range segments {
			if err := unix.Sendto(fd, s, 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) { // the queue of the link
				return err
			}
		}
		return nil
	})
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 + uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

// listen makes a service.
func listen(t *testing.T, h *lab.Host, addr netip.Addr, port uint16) net.Listener {
	t.Helper()
	l, err := h.Listen("tcp", netip.AddrPortFrom(addr, port))
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// connect makes a connection to a service and returns its two ends.
func connect(t *testing.T, from *lab.Host, local netip.AddrPort, l net.Listener, to netip.AddrPort) (client, server net.Conn) {
	t.Helper()
	client, err := from.Dial(within(t), "tcp", local, to, nil)
	must(t, err)
	server, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() }) // closed already, some of them
	return client, server
}

// yes is a word of a SUPPORT line.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
