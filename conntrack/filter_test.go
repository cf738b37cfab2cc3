package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// numbers writes the 32-bit attributes of a request as "type=value ".
func numbers(data []byte) string {
	var s strings.Builder
	for a := nfnl.Walk(data[nfgenmsgLen:]); a.Next(); {
		fmt.Fprintf(&s, "%d=%d ", a.Type, binary.BigEndian.Uint32(a.Value))
	}
	return s.String()
}

func TestFilterMatch(t *testing.T) {
	tcp, udp, udp6 := parse(t, lineTCP), parse(t, lineUDP), parse(t, lineUDP6)
	offloaded, bare := tcp, Flow{}
	offloaded.Status |= Offload
	offloaded.Fields &^= FieldTCP | FieldTimeout
	offloaded.TCP = TCPInfo{}
	strange := tcp
	strange.TCP.State = 200
	flows := []Flow{tcp, udp, udp6, offloaded, strange, bare}
	states := TCPStateSet(TCPEstablished, TCPSynSent2)
	prefix := netip.MustParsePrefix
	tests := []struct {
		filter *Filter
		want   string // of flows, in order
	}{
		{nil, "yyyyyy"},
		{&Filter{}, "yyyyyy"},
		{&Filter{Proto: ProtoTCP}, "ynnyyn"},
		{&Filter{Proto: ProtoSCTP}, "nnnnnn"},
		{&Filter{IPv4Only: true}, "yynyyn"},
		{&Filter{IPv6Only: true}, "nnynnn"},
		{&Filter{IPv4Only: true, IPv6Only: true}, "nnnnnn"},
		{&Filter{StatusSet: SeenReply}, "ynyyyn"},
		{&Filter{StatusSet: SeenReply | Assured}, "ynnyyn"},
		{&Filter{StatusUnset: SeenReply}, "nynnnn"},
		{&Filter{StatusUnset: SrcNAT}, "yyyyyn"},
		{&Filter{StatusSet: SeenReply, StatusUnset: Assured}, "nnynnn"},
		{&Filter{StatusSet: SeenReply, StatusUnset: SeenReply}, "nnnnnn"},
		{&Filter{TCPStates: states}, "ynnnnn"},
		{&Filter{TCPStates: TCPStateSet(TCPNone)}, "nnnnnn"},
		{&Filter{TCPStates: TCPStateSet(TCPClose)}, "nnnnnn"},
		{&Filter{Src: prefix("192.0.2.0/24")}, "yynyyn"},
		{&Filter{Src: prefix("192.0.2.2/32")}, "nnnnnn"},
		{&Filter{Src: prefix("::/0")}, "nnynnn"},
		{&Filter{Dst: prefix("2001:db8::7/128")}, "nnynnn"},
		{&Filter{Dst: prefix("198.51.100.0/28")}, "yynyyn"},
		{&Filter{Src: prefix("198.51.100.0/28")}, "nnnnnn"},
		{&Filter{Src: netip.PrefixFrom(netip.MustParseAddr("192.0.2.0"), 33)}, "nnnnnn"},
		{&Filter{Proto: ProtoUDP, IPv4Only: true, Dst: prefix("0.0.0.0/0")}, "nynnnn"},
	}
	for _, tt := range tests {
		var got []byte
		for _, f := range flows {
			got = append(got, map[bool]byte{true: 'y', false: 'n'}[tt.filter.Match(&f)])
		}
		if string(got) != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.filter, got, tt.want)
		}
	}
}

func TestTCPStateSet(t *testing.T) {
	if got := TCPStateSet(); got != 0 {
		t.Errorf("no state: %b", got)
	}
	for s := range TCPSynSent2 + 1 {
		f := Filter{TCPStates: TCPStateSet(s)}
		for other := range TCPSynSent2 + 1 {
			flow := Flow{Fields: FieldTCP, TCP: TCPInfo{State: other}}
			if f.Match(&flow) != (s == other) {
				t.Errorf("a set of %v, asked for %v", s, other)
			}
		}
	}
}
