package reject

import (
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// reading is the counters at an instant.
func (tt counting) reading() *reading {
	s := conntrack.Stats{CPU: -1, InsertFailed: tt.failed, Drop: tt.dropped, ChainTooLong: tt.long,
		Fields: conntrack.StatInsertFailed | conntrack.StatDrop | conntrack.StatChainTooLong}
	r := &reading{at: at(tt.at), stats: s, limited: tt.limited, dropped: stackCounts{tt.stray, tt.overflows}}
	if tt.overflows > 0 {
		r.full = &sockdiag.Socket{State: sockdiag.Listen, AcceptQueue: 129, Backlog: 128}
	}
	return r
}

type counting struct {
	at                             time.Duration
	dropped, failed, long, limited uint64
	stray, overflows               uint64
	want                           []string
}

// Causes that only counters tell are told when they begin, and every Repeat with
// the sum, if they went on; also what came last.
func TestSilences(t *testing.T) {
	ss := newSilences(counting{dropped: 100, failed: 100, limited: 7}.reading())
	for _, tt := range []counting{
		{at: 2 * time.Second, dropped: 100, failed: 100, limited: 7},
		{at: 4 * time.Second, dropped: 105, failed: 105, limited: 7, want: []string{"insert-failed 5 from 2s"}},
		{at: 6 * time.Second, dropped: 106, failed: 106, limited: 9, want: []string{"icmp-rate-limited 2 from 4s"}},
		{at: 8 * time.Second, dropped: 106, failed: 106, limited: 9},
		{at: 14 * time.Second, dropped: 106, failed: 106, limited: 9, want: []string{"insert-failed 6 from 2s"}}, // what came last
		{at: 26 * time.Second, dropped: 106, failed: 106, limited: 9},
		{at: 28 * time.Second, dropped: 116, failed: 106, long: 0, limited: 10, want: []string{"icmp-rate-limited 3 from 4s", "table-full 10 from 26s"}},
		{at: time.Hour, dropped: 116, failed: 110, long: 4, limited: 10, want: []string{"chain-too-long 4 from 28s"}},
		{at: 2 * time.Hour, dropped: 116, failed: 111, long: 4, limited: 10, want: []string{"insert-failed 1 from 1h0m0s"}}, // anew
		{at: 3 * time.Hour, dropped: 116, failed: 111, long: 4, limited: 10, stray: 2, overflows: 3,
			want: []string{"accept-queue-full 3 from 2h0m0s", "reverse-path 2 from 2h0m0s"}},
	} {
		var got []string
		for _, v := range ss.read(tt.reading(), &surroundings{}, repeat) {
			got = append(got, fmt.Sprintf("%s %d from %v", v.Cause, v.Count, v.First.Sub(now)))
			if v.Evidence.Refusal != Counted || !v.Last.Equal(at(tt.at)) || v.Evidence.Counters.Value.Window <= 0 {
				t.Errorf("got %+v", v)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("at %v: %q, want %q", tt.at, got, tt.want)
		}
	}
}

// The window of the counters that go with every packet's evidence is 10 to 20 s
// long, and short only at first.
func TestWindow(t *testing.T) {
	first := counting{}.reading()
	w := window{first, first}
	for s := 2; s < 200; s += 2 {
		r := counting{at: time.Duration(s) * time.Second, dropped: uint64(s)}.reading()
		w.move(r)
		c := r.since(w.older)
		seconds := int(c.Window / time.Second)
		if seconds != s && (seconds < 10 || seconds > 26) || c.Conntrack.Drop != uint64(seconds) {
			t.Errorf("at %d s: %d s, %d drops", s, seconds, c.Conntrack.Drop)
		}
	}
}

func TestRateLimitedCounters(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	const names = "Icmp: InMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs\n"
	for _, tt := range []struct {
		proc      fstest.MapFS
		want, of6 uint64
	}{
		{nil, 0, 0},
		{fstest.MapFS{"net/snmp": file("Ip: Forwarding\nIp: 2\n" + names + "Icmp: 1 2 30 400 5\nIcmpMsg: OutType3\nIcmpMsg: 5\n"),
			"net/snmp6": file("Icmp6InMsgs  \t9\nIcmp6OutRateLimitHost           \t5000\n")}, 5430, 5000},
		{fstest.MapFS{"net/snmp": file("Icmp: InMsgs OutErrors\nIcmp: 1 2\n"), "net/snmp6": file("Icmp6InMsgs 9\n")}, 0, 0}, // an old kernel
		{fstest.MapFS{"net/snmp": file(names + "Icmp: 1 2\n")}, 0, 0},
		{fstest.MapFS{"net/snmp": file(names + "Icmp: 1 2 x 4\n"), "net/snmp6": file("Icmp6OutRateLimitHost\n\n")}, 4, 0},
	} {
		if got, of6 := rateLimited(tt.proc); got != tt.want || of6 != tt.of6 {
			t.Errorf("%v: %d, %d of ICMPv6; want %d, %d", tt.proc, got, of6, tt.want, tt.of6)
		}
	}
}

func TestStackCounters(t *testing.T) {
	text := "TcpExt: SyncookiesSent ListenOverflows ListenDrops IPReversePathFilter TCPTimeouts\nTcpExt: 1 20 21 300 4\n" +
		"IpExt: InNoRoutes ListenOverflows\nIpExt: 5 6\n"
	proc := fstest.MapFS{"net/netstat": {Data: []byte(text)}}
	if got := readStack(proc); got != (stackCounts{reversePath: 300, overflows: 20}) {
		t.Errorf("got %+v", got)
	}
	if got := readStack(fstest.MapFS{}); got != (stackCounts{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// The ends of entries that ended alive are not pushed out by the others.
func TestEndings(t *testing.T) {
	es := newEndings(10)
	live, closing := flow(t, alive), flow(t, alive)
	closing.TCP.State = conntrack.TCPTimeWait
	key := keyOfTuple(&live.Original)
	es.put(&Ended{Event: conntrack.Event{Flow: live}, At: now})
	for i := range 1000 {
		f := closing
		f.Original.SrcPort, f.Reply.DstPort = uint16(i), uint16(i)
		es.put(&Ended{Event: conntrack.Event{Flow: f}, At: at(time.Second)})
	}
	if e := es.get(key); e == nil || e.Event.Flow != live {
		t.Errorf("got %+v", e)
	}
	if len(es.alive.by) != 2 || len(es.closed.by) != 20 {
		t.Errorf("%d and %d are kept", len(es.alive.by), len(es.closed.by))
	}
	es.put(&Ended{Event: conntrack.Event{Flow: closing}, At: at(2 * time.Second)})
	if e := es.get(key); e == nil || e.Event.Flow != closing {
		t.Errorf("the later end: %+v", e)
	}
	if e := es.get(flowKey{}); e != nil {
		t.Errorf("got %+v", e)
	}
}
