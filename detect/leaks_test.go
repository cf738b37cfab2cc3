package detect

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// examine runs a detector, and checks that it is pure and reads rows as they
// come.
func examine(t *testing.T, d Detector, h Host) []Finding {
	t.Helper()
	before := slices.Clone(h.Sockets)
	found := Find(h, d)
	if !slices.Equal(before, h.Sockets) {
		t.Error("the rows were changed")
	}
	for range 3 { // maps are walked in another order each time
		if again := Find(h, d); !reflect.DeepEqual(found, again) {
			t.Errorf("the same rows gave %v, then %v", found, again)
		}
	}
	for _, f := range found {
		if f.Detector != d.Name() || f.Severity == 0 || f.Confidence == Unknown || f.Subject == "" || f.Cause == "" ||
			len(f.Fix) == 0 || f.Count == 0 || len(f.Evidence.Sockets) > 1+evidenceOf {
			t.Errorf("not a whole finding: %+v", f)
		}
	}
	return found
}

// pileOf makes n sockets of port 443 with a peer each, all seen from a user 1000
// with the same inode, if the state has an owner.
func pileOf(n int, state sockdiag.State, change ...func(i int, s *sockdiag.Socket)) []sockdiag.Socket {
	rows := make([]sockdiag.Socket, n)
	for i := range rows {
		s := &rows[i]
		*s = sockdiag.Socket{
			Protocol: sockdiag.TCP, Family: sockdiag.IPv4, State: state, Inode: 1, UID: 1000,
			Local:  netip.AddrPortFrom(netip.MustParseAddr(server), 443),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 40000),
			Fields: sockdiag.FieldInfo, Info: sockdiag.TCPInfo{LastAckRecv: time.Hour, LastDataRecv: 2 * time.Hour, LastDataSent: time.Hour},
		}
		for _, c := range change {
			c(i, s)
		}
	}
	return rows
}

// orphaned makes a socket one that no process has, and that retransmits.
func orphaned(_ int, s *sockdiag.Socket) {
	s.Inode, s.UID, s.Timer, s.Retransmits = 0, 0, sockdiag.TimerOn, 2
}

// fromText makes a socket one of a line of netstat(8).
func fromText(_ int, s *sockdiag.Socket) {
	s.Inode, s.UID, s.Timer, s.Retransmits = 0, 0, 0, 0
	s.Fields = sockdiag.UnknownOwner | sockdiag.UnknownTimer | sockdiag.UnknownBacklog
}

func keptAlive(_ int, s *sockdiag.Socket) { s.Timer = sockdiag.TimerKeepalive }

func quietFor(ack, data time.Duration) func(int, *sockdiag.Socket) {
	return func(_ int, s *sockdiag.Socket) { s.Info.LastAckRecv, s.Info.LastDataRecv = ack, data }
}

var leakTable = []struct {
	name  string
	rows  []sockdiag.Socket
	leaks Leaks
	want  string // subject; empty is none
	grade [2]int // severity, confidence
}{
	{"no rows", nil, Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT, as many as are normal", pileOf(60, sockdiag.CloseWait), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT, one more", pileOf(61, sockdiag.CloseWait), Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT, fewer wanted", pileOf(3, sockdiag.CloseWait), Leaks{CloseWait: 2}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT, 59.9 s old", pileOf(99, sockdiag.CloseWait, quietFor(59900*time.Millisecond, time.Hour)), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT, a minute old", pileOf(99, sockdiag.CloseWait, quietFor(time.Minute, time.Hour)), Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT, keep-alives answered", pileOf(61, sockdiag.CloseWait, keptAlive, quietFor(time.Second, time.Minute)),
		Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 1}},
	{"CLOSE_WAIT, keep-alives of few answered", pileOf(62, sockdiag.CloseWait, keptAlive, func(i int, s *sockdiag.Socket) {
		if i == 0 {
			s.Info.LastAckRecv = time.Second
		}
	}), Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT just now, with keep-alives", pileOf(99, sockdiag.CloseWait, keptAlive, quietFor(999*time.Millisecond, time.Hour)), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT soon after data, with keep-alives", pileOf(99, sockdiag.CloseWait, keptAlive, quietFor(time.Second, 59*time.Second)), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT, some young", pileOf(99, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) {
		if i >= 60 {
			s.Info.LastAckRecv = time.Second
		}
	}), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT without tcp_info", pileOf(61, sockdiag.CloseWait, func(_ int, s *sockdiag.Socket) { s.Fields = 0 }),
		Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 1}},
	{"CLOSE_WAIT of text", pileOf(61, sockdiag.CloseWait, fromText), Leaks{}, "CLOSE_WAIT, port 443", [2]int{2, 1}},
	{"CLOSE_WAIT that waits for accept", pileOf(99, sockdiag.CloseWait, func(_ int, s *sockdiag.Socket) { s.Inode = 0 }), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT of two users", pileOf(99, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) { s.UID += uint32(i % 2) }), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT of two cgroups", pileOf(99, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) { s.CgroupID = uint64(i % 2) }), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT of a cgroup", pileOf(61, sockdiag.CloseWait, func(_ int, s *sockdiag.Socket) {
		s.CgroupID, s.Fields = 77, sockdiag.FieldInfo|sockdiag.FieldCgroup
	}), Leaks{}, "CLOSE_WAIT, port 443, user 1000, cgroup 77", [2]int{2, 2}},
	{"CLOSE_WAIT of two ports", pileOf(99, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) {
		s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(443+i%2))
	}), Leaks{}, "", [2]int{}},
	{"CLOSE_WAIT of two addresses", pileOf(61, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) {
		s.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), 443)
	}), Leaks{}, "CLOSE_WAIT, port 443, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT of a client", pileOf(61, sockdiag.CloseWait, toBackend), Leaks{}, "CLOSE_WAIT, connections to 10.1.99.5:5432, user 1000", [2]int{2, 2}},
	{"CLOSE_WAIT of a client of many", pileOf(61, sockdiag.CloseWait, toBackend, func(i int, s *sockdiag.Socket) {
		s.Remote = netip.AddrPortFrom(s.Remote.Addr(), uint16(5000+i))
	}), Leaks{}, "", [2]int{}},
	{"of UDP", pileOf(99, sockdiag.CloseWait, func(_ int, s *sockdiag.Socket) { s.Protocol = sockdiag.SCTP }), Leaks{}, "", [2]int{}},
	{"ESTABLISHED", pileOf(2000, sockdiag.Established), Leaks{}, "", [2]int{}},
	{"TIME_WAIT", pileOf(2000, sockdiag.TimeWait, orphaned), Leaks{}, "", [2]int{}},

	{"FIN_WAIT1, normal", pileOf(60, sockdiag.FinWait1, orphaned), Leaks{}, "", [2]int{}},
	{"FIN_WAIT1", pileOf(61, sockdiag.FinWait1, orphaned), Leaks{}, "FIN_WAIT1, port 443", [2]int{2, 2}},
	{"FIN_WAIT1 of a restart", pileOf(5000, sockdiag.FinWait1, orphaned, func(_ int, s *sockdiag.Socket) { s.Retransmits = 0 }), Leaks{}, "", [2]int{}},
	{"FIN_WAIT1, zero window", pileOf(61, sockdiag.FinWait1, orphaned, func(_ int, s *sockdiag.Socket) {
		s.Retransmits, s.Timer = 0, sockdiag.TimerProbe
	}), Leaks{}, "FIN_WAIT1, port 443", [2]int{2, 2}},
	{"FIN_WAIT1 of text", pileOf(61, sockdiag.FinWait1, fromText), Leaks{}, "FIN_WAIT1, port 443", [2]int{2, 1}},
	{"LAST_ACK, normal", pileOf(60, sockdiag.LastAck, orphaned), Leaks{}, "", [2]int{}},
	{"LAST_ACK", pileOf(61, sockdiag.LastAck, orphaned), Leaks{}, "LAST_ACK, port 443", [2]int{1, 2}},
	{"CLOSING, normal", pileOf(10, sockdiag.Closing, orphaned), Leaks{}, "", [2]int{}},
	{"CLOSING", pileOf(11, sockdiag.Closing, orphaned), Leaks{}, "CLOSING, port 443", [2]int{1, 2}},
	{"FIN_WAIT2, normal", pileOf(1000, sockdiag.FinWait2, orphaned), Leaks{}, "", [2]int{}},
	{"FIN_WAIT2", pileOf(1001, sockdiag.FinWait2, orphaned), Leaks{}, "FIN_WAIT2, port 443", [2]int{1, 2}},
	{"FIN_WAIT2 of text", pileOf(1001, sockdiag.FinWait2, fromText), Leaks{}, "FIN_WAIT2, port 443", [2]int{1, 1}},
	{"FIN_WAIT2 that is open", pileOf(61, sockdiag.FinWait2), Leaks{}, "FIN_WAIT2, port 443, user 1000", [2]int{2, 2}},
	{"FIN_WAIT2 that still receives", pileOf(99, sockdiag.FinWait2, quietFor(time.Second, time.Second)), Leaks{}, "", [2]int{}},
}

// toBackend makes a socket one of a client of a service.
func toBackend(i int, s *sockdiag.Socket) {
	s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(33000+i))
	s.Remote = netip.AddrPortFrom(netip.MustParseAddr(other), 5432)
}

func TestLeaks(t *testing.T) {
	for _, tt := range leakTable {
		t.Run(tt.name, func(t *testing.T) {
			found := examine(t, tt.leaks, Host{Now: now, Sockets: tt.rows})
			if tt.want == "" {
				if len(found) != 0 {
					t.Errorf("got %v", found)
				}
				return
			}
			if len(found) != 1 {
				t.Fatalf("got %v", found)
			}
			f := found[0]
			if f.Subject != tt.want || f.Count != uint64(len(tt.rows)) || f.Limit >= f.Count ||
				[2]int{int(f.Severity), int(f.Confidence)} != tt.grade || len(f.Evidence.Sockets) != evidenceOf {
				t.Errorf("got %+v", f)
			}
		})
	}
}

// A listener tells which port is the service, though it be the higher one; and
// the family of a source is told by its length.
func TestLeaksService(t *testing.T) {
	listener := sockdiag.Socket{Family: sockdiag.IPv6, State: sockdiag.Listen, Inode: 9, Local: netip.MustParseAddrPort("[::]:45000")}
	rows := pileOf(61, sockdiag.FinWait1, orphaned, func(_ int, s *sockdiag.Socket) {
		s.Local = netip.MustParseAddrPort("[2001:db8:32::70]:45000")
		s.Remote = netip.MustParseAddrPort("[2001:db8:41::192]:40000")
	})
	found := examine(t, Leaks{}, Host{Sockets: append([]sockdiag.Socket{listener}, rows...)})
	source := netip.MustParsePrefix("2001:db8:41::/64")
	if len(found) != 1 || found[0].Subject != "FIN_WAIT1, port 45000" || !slices.Equal(found[0].Sources, []netip.Prefix{source}) {
		t.Errorf("got %+v", found)
	}
}

// The worst comes first, and each state has its own words.
func TestLeaksText(t *testing.T) {
	h := Host{Now: now, Sockets: slices.Concat(
		pileOf(70, sockdiag.CloseWait, quietFor(90*time.Second, time.Hour)),
		pileOf(80, sockdiag.FinWait1, orphaned, func(_ int, s *sockdiag.Socket) {
			s.Fields |= sockdiag.FieldMemory
			s.Memory.SndQueued, s.Memory.RcvAlloc, s.Timer = 65536, 1024, sockdiag.TimerProbe
		}),
		pileOf(90, sockdiag.LastAck, orphaned, func(_ int, s *sockdiag.Socket) { s.SendQueue = 10 }),
	)}
	h.Holders = map[uint32][]sockdiag.Holder{1: {{Process: sockdiag.Process{PID: 17, Command: "app"}, FD: 5}}}
	found := examine(t, Leaks{}, h)
	want := [][]string{
		{"FIN_WAIT1, port 443", "the peers of 80 take none", "5200 KiB", "tcp_orphan_retries"},
		{"CLOSE_WAIT, port 443, process 17 (app)", "70 sockets", "at least 1m30s", "ss -tnpe state close-wait 'sport = :443'"},
		{"LAST_ACK, port 443", "900 bytes", "vanished", "ss -K state last-ack 'sport = :443'"},
	}
	if len(found) != len(want) {
		t.Fatalf("got %v", found)
	}
	for i, f := range found {
		if !mentions(fmt.Sprint(f.Subject, f), want[i]...) {
			t.Errorf("%d: got %v, want %q", i, f, want[i])
		}
	}
	if f := found[1]; !f.Since.Equal(now.Add(-90*time.Second)) || f.Evidence.Missing != nil {
		t.Errorf("got %+v", f)
	}
}

// More services and owners than are kept do not grow the state.
func TestLeaksBound(t *testing.T) {
	l := &leaking{host: new(Host), piles: make(map[pileKey]*pile)}
	rows := pileOf(maxPiles+100, sockdiag.CloseWait, func(i int, s *sockdiag.Socket) { s.UID = uint32(i) })
	for i := range rows {
		l.socket(&rows[i])
	}
	if len(l.piles) != maxPiles {
		t.Errorf("%d piles", len(l.piles))
	}
}
