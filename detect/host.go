package detect

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Host is what is known of one host, or of one network namespace.
type Host struct {
	// Now is when the rows were read.
	Now     time.Time
	Flows   []conntrack.Flow
	Sockets []sockdiag.Socket
	// Settings are the tracker's; the zero Settings is not known.
	Settings conntrack.Settings
	// Addrs are the host's own addresses, by which its own flows are told from
	// those it forwards. The local addresses of Sockets count as such anyway.
	Addrs []netip.Addr
}

// local returns the set of the host's own addresses.
func (h *Host) local() map[netip.Addr]bool {
	own := make(map[netip.Addr]bool, len(h.Addrs))
	for _, a := range h.Addrs {
		own[a.Unmap()] = true
	}
	for i := range h.Sockets {
		if a := h.Sockets[i].Local.Addr(); !a.IsUnspecified() {
			own[a] = true
		}
	}
	return own
}

// connections indexes the sockets that have a peer by the tuple of the packets
// they send.
func (h *Host) connections() map[conntrack.Tuple]*sockdiag.Socket {
	m := make(map[conntrack.Tuple]*sockdiag.Socket, len(h.Sockets))
	for i := range h.Sockets {
		if s := &h.Sockets[i]; s.State != sockdiag.Listen && s.Remote.Port() != 0 {
			m[SocketTuple(s)] = s
		}
	}
	return m
}

// SocketTuple returns the tuple of the packets that a TCP socket sends. It is
// the Original tuple of the flow the socket began, or the Reply tuple of the
// one it answers, translated addresses (NAT) or not: conntrack sees local
// packets before it translates them.
func SocketTuple(s *sockdiag.Socket) conntrack.Tuple {
	return conntrack.Tuple{
		Src: s.Local.Addr(), Dst: s.Remote.Addr(),
		SrcPort: s.Local.Port(), DstPort: s.Remote.Port(),
		Proto: conntrack.ProtoTCP,
	}
}

// sent returns the tuples of f that packets of this host's own sockets can
// have: none for a flow it forwards.
func sent(f *conntrack.Flow, own map[netip.Addr]bool) []conntrack.Tuple {
	var tuples []conntrack.Tuple
	if own[f.Original.Src] {
		tuples = append(tuples, f.Original)
	}
	if own[f.Reply.Src] {
		tuples = append(tuples, f.Reply)
	}
	return tuples
}

func connection(t conntrack.Tuple) string {
	return fmt.Sprintf("%v > %v", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

// seconds writes a duration as the sysctls do.
func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d/time.Second)) }

// timeoutSetting is the sysctl of a TCP state's timeout.
func timeoutSetting(s conntrack.Settings, state conntrack.TCPState) (Setting, bool) {
	name, ok := map[conntrack.TCPState]string{
		conntrack.TCPEstablished: "established", conntrack.TCPCloseWait: "close_wait",
		conntrack.TCPFinWait: "fin_wait", conntrack.TCPLastAck: "last_ack",
	}[state]
	name = "nf_conntrack_tcp_timeout_" + name
	if !ok || !s.Has(name) {
		return Setting{}, false
	}
	return Setting{"net.netfilter." + name, fmt.Sprint(int64(s.Timeouts.TCP(state) / time.Second))}, true
}
