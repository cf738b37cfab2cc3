package reject

import (
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// The direction of a packet is found before and after each translation.
func TestSideOf(t *testing.T) {
	const (
		client, public, gateway, server = "192.0.2.1", "192.0.2.80", "192.0.2.254", "10.0.0.8"
		both                            = "tcp 6 300 ESTABLISHED src=192.0.2.1 dst=192.0.2.80 sport=4000 dport=80 src=10.0.0.8 dst=192.0.2.254 sport=8080 dport=5000"
		plain                           = "tcp 6 300 ESTABLISHED src=192.0.2.1 dst=192.0.2.80 sport=4000 dport=80 src=192.0.2.80 dst=192.0.2.1 sport=80 dport=4000"
	)
	for _, tt := range []struct {
		entry string
		src   string
		sport uint16
		dst   string
		dport uint16
		want  side
	}{
		{plain, client, 4000, public, 80, original},
		{plain, public, 80, client, 4000, reply},
		{plain, client, 4001, public, 80, noSide},
		{both, client, 4000, public, 80, original},    // in prerouting
		{both, client, 4000, server, 8080, original},  // in forward
		{both, gateway, 5000, server, 8080, original}, // as sent
		{both, server, 8080, gateway, 5000, reply},    // in prerouting
		{both, server, 8080, client, 4000, reply},     // in forward
		{both, public, 80, client, 4000, reply},       // as sent
		{both, server, 8080, client, 5000, noSide},
		{both, gateway, 5000, public, 80, noSide},
	} {
		h := packet.Header{Proto: packet.ProtoTCP, SrcPort: tt.sport, DstPort: tt.dport}
		h.Src, h.Dst = netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)
		f := flow(t, tt.entry)
		if got := sideOf(Found(f), PacketTuple(h)); got != tt.want {
			t.Errorf("%s:%d > %s:%d: %d, want %d", tt.src, tt.sport, tt.dst, tt.dport, got, tt.want)
		}
		if got := sideOf(Lookup[conntrack.Flow]{Value: f}, PacketTuple(h)); got != noSide {
			t.Errorf("an entry that was not looked for has the packet in direction %d", got)
		}
	}
}

// Each segment in each state, by tcp_conntracks of nf_conntrack_proto_tcp.c
// (Linux 6.1): a letter for each of SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT
// CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2, "v" for INVALID.
func TestMisfits(t *testing.T) {
	for flags, want := range map[string][2]string{
		"SYN":     {".........", ".vvvvv.v."},
		"SYN|ACK": {"v.vvvvvv.", "........."},
		"FIN|ACK": {"v.......v", "v.......v"},
		"ACK":     {"v.......v", "........."},
		"PSH|ACK": {"v.......v", "........."},
		"RST|ACK": {".........", "........."},
		"RST":     {".........", "........."},
	} {
		for dir, entry := range []string{served, alive} {
			for i := range 9 {
				e := seen{packet: "in " + flags, how: Logged, state: Invalid, entry: entry}.evidence(t, same)
				e.Entry.Value.TCP.State = conntrack.TCPState(i + 1)
				k := newKnown(&e)
				if got := k.misfit(); got != (want[dir][i] == 'v') || k.side != original+side(dir) {
					t.Errorf("%s in direction %d, state %v: %t", flags, dir, e.Entry.Value.TCP.State, got)
				}
			}
		}
	}
}
