package nflog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// of is a packet of a group.
func of(group uint16, seq uint32) netlink.Message {
	m := message(unix.AF_INET, func(b *nfnl.Builder) { b.U32(attrSeq, seq) })
	m.Data[2], m.Data[3] = byte(group>>8), byte(group)
	return m
}

// Each group has its own numbers, and its own losses.
func TestGroups(t *testing.T) {
	w := newWire()
	r, err := listenOn(t, w, Config{Groups: []uint16{0x0105, 6}})
	if err != nil {
		t.Fatal(err)
	}
	w.datagrams <- []netlink.Message{of(0x0105, 0), of(6, 0), of(0x0105, 1), of(6, 3)}
	w.datagrams <- []netlink.Message{of(0x0105, 4), of(6, 4), of(7, 50)} // and one that was not asked for
	next := pull(t, r)
	for _, want := range []any{
		[2]uint32{0x0105, 0}, [2]uint32{6, 0}, [2]uint32{0x0105, 1}, Lost{Group: 6, Count: 2}, [2]uint32{6, 3},
		Lost{Group: 0x0105, Count: 2}, [2]uint32{0x0105, 4}, [2]uint32{6, 4}, [2]uint32{7, 50},
	} {
		p, err := next()
		var got any = [2]uint32{uint32(p.Group), p.Seq}
		if lost := (*Lost)(nil); errors.As(err, &lost) {
			got = *lost
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// A packet logged to three groups comes three times in the order of the rules,
// before the next packet, from one socket.
func TestLiveGroupsInOrder(t *testing.T) {
	client, server := lab.Two(t)
	groups := []uint16{300, 5, 20}
	logTo(t, server, groups)
	r := listenAt(t, server, Config{Groups: groups})
	const n = 200
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), n)
	next := pull(t, r)
	var global uint32
	for i := range uint32(3 * n) {
		p, err := next()
		if err != nil || p.Group != groups[i%3] || p.Seq != i/3 || p.Family != IPv4 || i > 0 && p.GlobalSeq != global+1 {
			t.Fatalf("packet %d: group %d, number %d, %d of all, %v, %v", i, p.Group, p.Seq, p.GlobalSeq, p.Family, err)
		}
		global = p.GlobalSeq
	}
}

// logTo logs UDP for port 9 to every group and drops it.
func logTo(t testing.TB, h *lab.Host, groups []uint16) {
	t.Helper()
	var rs []nft.Rule
	for _, g := range groups {
		rs = append(rs, nft.Rule{Proto: nft.UDP, DstPort: 9, Log: &nft.Log{Group: g, Prefix: fmt.Sprintf("group %d ", g)}})
	}
	rules(t, h, nft.Input, append(rs, nft.Rule{Proto: nft.UDP, DstPort: 9, Verdict: nft.Drop})...)
}

// The losses of each group add up to what it did not get, whatever the batches.
func TestLiveGroupsLoss(t *testing.T) { readers(t, liveGroupsLoss) }

func liveGroupsLoss(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	groups := []uint16{5, 6, 7}
	logTo(t, server, groups)
	r := listenAt(t, server, Config{Groups: groups, GoNflog: goNflog, ReadBuffer: 32 << 10, Threshold: 4, FlushInterval: 10 * time.Millisecond})
	to := netip.AddrPortFrom(server.Addr4(), 9)
	const flood = 3000
	sendUDP(t, client, to, flood) // while nobody ranges
	received, lost, sent := map[uint16]uint64{}, map[uint16]uint64{}, uint64(flood)
	overrun := false
	told := func() bool {
		for _, g := range groups {
			if received[g]+lost[g] != sent {
				return false
			}
		}
		return true
	}
	for range 200 { // one more packet tells how many went before it
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		for p, err := range r.Packets(ctx) {
			var l *Lost
			switch {
			case errors.As(err, &l):
				lost[l.Group] += l.Count
				overrun = overrun || l.Overrun
			case errors.Is(err, context.DeadlineExceeded):
			case err != nil:
				t.Fatal(err)
			default:
				received[p.Group]++
			}
		}
		cancel()
		if sent > flood && told() {
			break
		}
		sendUDP(t, client, to, 1)
		sent++
	}
	if !told() || !overrun || lost[5] == 0 || lost[6] == 0 || lost[7] == 0 {
		t.Errorf("of %d, received %v and lost %v; overrun told: %t", sent, received, lost, overrun)
	}
	t.Logf("of %d, received %v and lost %v", sent, received, lost)
}

// One group that is taken leaves none bound.
func TestLiveGroupsTaken(t *testing.T) {
	_, server := lab.Two(t)
	taken := listenAt(t, server, Config{Groups: []uint16{6}})
	for _, goNflog := range []bool{false, true} {
		_, err := Listen(&Config{NetNS: server.NetNS(), Groups: []uint16{5, 6}, GoNflog: goNflog})
		if !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), "nflog: group 6: another process listens on this group "+
			"in this network namespace (see /proc/net/netfilter/nfnetlink_log): ") {
			t.Errorf("got %v", err)
		}
		closeReader(t, listenAt(t, server, Config{Groups: []uint16{5}}))
	}
	closeReader(t, taken)
}

// Reading allocates nothing, from the socket to the loop. It must not run in
// parallel with other tests.
func TestLiveNoAllocations(t *testing.T) {
	client, server := lab.Two(t)
	logTo(t, server, []uint16{5})
	r := listenAt(t, server, Config{Groups: []uint16{5}, Threshold: 8})
	const n = 1000
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), n+100)
	next, stop := iter.Pull2(r.Packets(t.Context()))
	defer stop()
	must := func() {
		if p, err, _ := next(); err != nil || len(p.Payload) == 0 || p.Prefix != "group 5 " {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	for range 50 {
		must()
	}
	if per := testing.AllocsPerRun(n, must); per != 0 {
		t.Errorf("%v allocations a packet", per)
	}
}

// The conntrack entry is asked for where the kernel can, and the group is bound
// where it cannot.
func TestLiveConntrackIfSupported(t *testing.T) { readers(t, liveConntrackIfSupported) }

func liveConntrackIfSupported(t *testing.T, goNflog bool) {
	client, server := lab.Two(t)
	rules(t, server, nft.Input, nft.Rule{CTState: nft.New, Proto: nft.UDP, DstPort: 9, Log: &nft.Log{Group: 5}, Verdict: nft.Drop})
	r := listenAt(t, server, Config{Groups: []uint16{5}, GoNflog: goNflog, Conntrack: WithConntrackIfSupported})
	sendUDP(t, client, netip.AddrPortFrom(server.Addr4(), 9), 1)
	p, err := pull(t, r)()
	if err != nil || p.HasCTInfo != r.Conntrack() || hasTuple(p.Conntrack) != r.Conntrack() {
		t.Errorf("got %+v, %v; conntrack data is told to be there: %t", p, err, r.Conntrack())
	}
	if without := listenAt(t, server, Config{Groups: []uint16{6}, GoNflog: goNflog}); without.Conntrack() {
		t.Error("conntrack data that nobody asked for")
	}
}
