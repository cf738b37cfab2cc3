package reject

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// No more flows are remembered than the limit; the one refused longest ago is
// forgotten, once all is told of it, and begins anew.
func TestFlowsBounded(t *testing.T) {
	s := newScene(t, 2)
	s.refuse(s.syn(1), 0)
	s.refuse(s.syn(2), 1)
	s.refuse(s.syn(1), 2) // now 2 is the oldest
	s.tells(time.Second, "no-service, likely, 2", "no-service, likely, 1")
	s.refuse(s.syn(3), time.Second)
	s.refuse(s.syn(1), 2*time.Second)
	if len(s.by) != 2 || s.order.Len() != 2 || len(s.from) != 1 {
		t.Errorf("%d and %d flows of %d sources are remembered, want 2 of 1", len(s.by), s.order.Len(), len(s.from))
	}
	s.tells(3*time.Second, "no-service, likely, 1") // 3; 1 is told again later
	s.refuse(s.syn(1), 4*time.Second)
	s.tells(time.Second+repeat, "no-service, likely, 4")
	s.refuse(s.syn(2), 20*time.Second) // anew, in the place of 3
	s.tells(21*time.Second, "no-service, likely, 1")
}

// A flow that was refused since it was told is not forgotten before that is told.
func TestFlowsKept(t *testing.T) {
	s := newScene(t, 1)
	s.refuse(s.syn(1), 0)
	s.tells(wait, "no-service, likely, 1")
	s.refuse(s.syn(1), time.Second)
	s.refuse(s.syn(2), 2*time.Second)
	if len(s.by) != 1 || len(s.crowds) != 1 {
		t.Errorf("%d flows and %d crowds are remembered, want 1 and 1", len(s.by), len(s.crowds))
	}
	s.tells(2*time.Second+wait, "no-service, likely, 1") // the crowd
	s.tells(wait+repeat, "no-service, likely, 2")
	s.refuse(s.syn(1), wait+repeat)
	s.tellAll() // at the end
	s.tells(wait+repeat, "no-service, likely, 3")
}

// While there is more to tell of all flows that are remembered, others share a
// count. None is lost.
func TestFlowsCrowded(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	s := newScene(t, 2)
	counts := make(map[string]int) // the last of each flow
	note := func(vs []Verdict) {
		for _, v := range vs {
			counts[fmt.Sprint(v.Flow, v.First)] = v.Count
			if v.Ports > 0 && (v.Ports > 7 || v.Flow != conntrack.Tuple{} || !strings.HasPrefix(v.Summary, "all sources together: ")) {
				t.Errorf("got %d ports, %v, %s", v.Ports, v.Flow, v.Summary)
			}
		}
	}
	for i := range 5000 {
		e := s.syn(uint16(i))
		e.Packet.Value.Src = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) // forged, all of them
		e.Packet.Value.DstPort = uint16(i % 7)
		s.refuse(e, time.Duration(i)*time.Millisecond)
		if i%500 == 499 {
			note(s.all(time.Duration(i) * time.Millisecond))
		}
		if len(s.by)+len(s.crowds) > 3 || s.order.Len() > 3 || s.waiting.Len() > 3 || s.later.Len() > 3 || len(s.from) > 2 {
			t.Fatalf("%d flows, %d crowds, %d waiting, %d later", len(s.by), len(s.crowds), s.waiting.Len(), s.later.Len())
		}
	}
	s.tellAll()
	note(s.all(time.Minute))
	sum := 0
	for _, n := range counts {
		sum += n
	}
	if sum != 5000 {
		t.Errorf("%d packets were told, want 5000", sum)
	}
}

// A source that is refused at many ports gets one verdict for those beyond the
// limit.
func TestFlowsScan(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	for name, from := range map[string]func(i int) netip.Addr{
		"192.0.2.9/32": func(int) netip.Addr { return netip.MustParseAddr("192.0.2.9") },
		"2001:db8:1::/64": func(i int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, 14: byte(i >> 8), 15: byte(i)})
		},
	} {
		s := newScene(t, 1000)
		s.perSource = 10
		for i := range 5000 {
			e := s.syn(1)
			e.Packet.Value.Src, e.Packet.Value.DstPort = from(i), uint16(i+1)
			s.refuse(e, 0)
			if i%2 == 0 {
				s.refuse(s.syn(77), 0) // another is told apart all the while
			}
		}
		vs := s.all(wait)
		if len(vs) != 12 {
			t.Fatalf("%s: %d verdicts, want 12", name, len(vs))
		}
		var crowds, sum int
		for _, v := range vs {
			sum += v.Count
			if v.Ports > 0 {
				crowds++
				if v.Count != 4990 || v.Ports != 4990 || !strings.HasPrefix(v.Summary, name+": more flows") ||
					v.Flow != (conntrack.Tuple{Src: netip.MustParsePrefix(name).Addr()}) {
					t.Errorf("got %+v", v)
				}
			}
		}
		if crowds != 1 || sum != 7500 || s.order.Len() != 12 {
			t.Errorf("%s: %d crowds, %d packets, %d flows", name, crowds, sum, s.order.Len())
		}
	}
}
