package sockdiag

import (
	"iter"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// cookies lists those of a sequence.
func cookies(seq iter.Seq[Socket]) (all []uint64) {
	for s := range seq {
		all = append(all, s.Cookie)
	}
	return all
}

func kept(d Delta) (all []uint64) {
	for c := range d.Kept() {
		if c.Before.Cookie != c.After.Cookie {
			panic("a change of two sockets")
		}
		all = append(all, c.After.Cookie)
	}
	return all
}

func snapshotOf(start time.Time, cookies ...uint64) *Snapshot {
	s := &Snapshot{Start: start}
	for _, n := range cookies {
		s.Sockets = append(s.Sockets, numbered(IPv4, n))
	}
	return s
}

func TestCompare(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b := snapshotOf(start, 5, 3, 9, 1), snapshotOf(start.Add(4*time.Second), 8, 1, 5, 2)
	for name, c := range map[string]struct {
		before, after        *Snapshot
		opened, closed, kept []uint64
		interval             time.Duration
		rate                 float64
	}{
		"both":      {a, b, []uint64{8, 2}, []uint64{3, 9}, []uint64{1, 5}, 4 * time.Second, 25},
		"backwards": {b, a, []uint64{3, 9}, []uint64{8, 2}, []uint64{5, 1}, -4 * time.Second, 0},
		"the same":  {a, a, nil, nil, []uint64{5, 3, 9, 1}, 0, 0},
		"no before": {nil, b, []uint64{8, 1, 5, 2}, nil, nil, 0, 0},
		"no after":  {a, nil, nil, []uint64{5, 3, 9, 1}, nil, 0, 0},
		"neither":   {},
	} {
		d := Compare(c.before, c.after)
		for range 2 { // it can be ranged over again
			if got := cookies(d.Opened()); !slices.Equal(got, c.opened) {
				t.Errorf("%s: opened %v, want %v", name, got, c.opened)
			}
			if got := cookies(d.Closed()); !slices.Equal(got, c.closed) {
				t.Errorf("%s: closed %v, want %v", name, got, c.closed)
			}
			if got := kept(d); !slices.Equal(got, c.kept) {
				t.Errorf("%s: kept %v, want %v", name, got, c.kept)
			}
		}
		if d.Interval != c.interval || d.PerSecond(100) != c.rate {
			t.Errorf("%s: interval %v, rate %v; want %v, %v", name, d.Interval, d.PerSecond(100), c.interval, c.rate)
		}
	}
	var none Delta
	if got := slices.Concat(cookies(none.Opened()), cookies(none.Closed()), kept(none)); got != nil {
		t.Errorf("the zero Delta has %v", got)
	}
}

// TestCompareBreak: breaking off a sequence ends it.
func TestCompareBreak(t *testing.T) {
	d := Compare(snapshotOf(time.Time{}, 1, 2, 3, 4), snapshotOf(time.Time{}, 3, 4, 5, 6))
	n := 0
	for range d.Opened() {
		n++
		break
	}
	for range d.Closed() {
		n++
		break
	}
	for range d.Kept() {
		n++
		break
	}
	if n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

// counted is a connection whose counters are n times 1 to 5.
func counted(n uint64) Socket {
	s := numbered(IPv4, 7)
	s.Fields = FieldInfo
	s.Info = TCPInfo{
		Fields: allInfo, TotalRetrans: uint32(n),
		BytesAcked: 2 * n, BytesReceived: 3 * n, BytesSent: 4 * n, BytesRetrans: 5 * n,
	}
	return s
}

func with(s Socket, change func(*Socket)) Socket {
	change(&s)
	return s
}

func TestTraffic(t *testing.T) {
	const all = allInfo
	elsewhere := netip.MustParseAddrPort("192.0.2.99:99")
	plain := with(counted(9), func(s *Socket) { s.Fields, s.Info = 0, TCPInfo{} })
	old := with(counted(9), func(s *Socket) { s.Info.Fields = InfoBase | InfoPacing | InfoBytes })
	wrapped := with(counted(9), func(s *Socket) { s.Info.TotalRetrans = math.MaxUint32 })
	listening := with(counted(1), func(s *Socket) { s.State, s.Remote = Close, netip.AddrPort{} })
	for name, c := range map[string]struct {
		before, after Socket
		want          Traffic
		restarted     bool
	}{
		"progress":     {counted(7), counted(9), Traffic{all, 2, 4, 6, 8, 10}, false},
		"none":         {counted(9), counted(9), Traffic{Fields: all}, false},
		"plain before": {plain, counted(9), Traffic{}, false},
		"time wait":    {counted(7), plain, Traffic{}, false},
		"old kernel":   {counted(7), old, Traffic{old.Info.Fields, 2, 4, 6, 0, 0}, false},
		"32 bits pass": {wrapped, counted(10), Traffic{all, 11, 2, 3, 4, 5}, false},
		"counted back": {counted(9), counted(7), Traffic{all, 7, 14, 21, 28, 35}, true},
		"acked back": {counted(7), with(counted(9), func(s *Socket) { s.Info.BytesAcked = 1 }),
			Traffic{all, 9, 1, 27, 36, 45}, true},
		"received back": {counted(7), with(counted(9), func(s *Socket) { s.Info.BytesReceived = 1 }),
			Traffic{all, 9, 18, 1, 36, 45}, true},
		"sent back": {counted(7), with(counted(9), func(s *Socket) { s.Info.BytesSent = 1 }),
			Traffic{all, 9, 18, 27, 1, 45}, true},
		"retransmitted back": {counted(7), with(counted(9), func(s *Socket) { s.Info.BytesRetrans = 1 }),
			Traffic{all, 9, 18, 27, 36, 1}, true},
		"retransmissions back": {counted(7), with(counted(9), func(s *Socket) { s.Info.TotalRetrans = 1 }),
			Traffic{all, 1, 18, 27, 36, 45}, true},
		"elsewhere": {counted(7), with(counted(9), func(s *Socket) { s.Remote = elsewhere }),
			Traffic{all, 9, 18, 27, 36, 45}, true},
		"from elsewhere": {counted(7), with(counted(9), func(s *Socket) { s.Local = elsewhere }),
			Traffic{all, 9, 18, 27, 36, 45}, true},
		"connected": {listening, counted(9), Traffic{all, 8, 16, 24, 32, 40}, false},
		"of UDP": {with(plain, func(s *Socket) { s.Protocol = UDP }),
			with(plain, func(s *Socket) { s.Protocol, s.Remote = UDP, elsewhere }), Traffic{}, false},
	} {
		change := Change{c.before, c.after}
		if got := change.Traffic(); got != c.want || change.Restarted() != c.restarted {
			t.Errorf("%s: %+v, restarted %v; want %+v, %v", name, got, change.Restarted(), c.want, c.restarted)
		}
	}
}

func TestStalled(t *testing.T) {
	waiting := with(counted(9), func(s *Socket) {
		s.Timer, s.SendQueue, s.Info.Unacked, s.Info.Backoff, s.Info.SndWnd = TimerOn, 100, 3, 4, 1000
	})
	edit := func(change func(*Socket)) Socket { return with(waiting, change) }
	for name, c := range map[string]struct {
		before, after Socket
		backoff       uint8
		want          Stall
	}{
		"unanswered":     {waiting, waiting, 4, StalledUnanswered},
		"any":            {waiting, waiting, 0, StalledUnanswered},
		"not yet":        {waiting, waiting, 5, NotStalled},
		"zero window":    {waiting, edit(func(s *Socket) { s.Timer = TimerProbe }), 4, StalledZeroWindow},
		"window shut":    {waiting, edit(func(s *Socket) { s.Info.SndWnd = 0 }), 4, StalledZeroWindow},
		"no window yet":  {waiting, edit(func(s *Socket) { s.Info.SndWnd, s.State = 0, SynSent }), 4, StalledUnanswered},
		"Linux 5.3":      {waiting, edit(func(s *Socket) { s.Info.SndWnd, s.Info.Fields = 0, InfoWindow-1 }), 4, StalledUnanswered},
		"keepalive":      {waiting, edit(func(s *Socket) { s.Timer, s.Info.SndWnd = TimerKeepalive, 0 }), 4, NotStalled},
		"timer off":      {waiting, edit(func(s *Socket) { s.Timer = TimerOff }), 0, NotStalled},
		"acknowledged":   {waiting, edit(func(s *Socket) { s.Info.BytesAcked++ }), 4, NotStalled},
		"nothing before": {edit(func(s *Socket) { s.SendQueue, s.Info.Unacked = 0, 0 }), waiting, 4, NotStalled},
		"nothing after":  {waiting, edit(func(s *Socket) { s.SendQueue, s.Info.Unacked = 0, 0 }), 4, NotStalled},
		"only a FIN":     {waiting, edit(func(s *Socket) { s.SendQueue = 0 }), 4, StalledUnanswered},
		"not sent":       {waiting, edit(func(s *Socket) { s.Info.Unacked = 0 }), 4, StalledUnanswered},
		"linear":         {waiting, edit(func(s *Socket) { s.Info.Backoff, s.Info.Retransmits = 0, 4 }), 4, StalledUnanswered},
		"row's own":      {waiting, edit(func(s *Socket) { s.Info.Backoff, s.Retransmits = 0, 4 }), 4, StalledUnanswered},
		"no info before": {edit(func(s *Socket) { s.Fields = 0 }), waiting, 0, NotStalled},
		"no info after":  {waiting, edit(func(s *Socket) { s.Fields = 0 }), 0, NotStalled},
		"old kernel":     {waiting, edit(func(s *Socket) { s.Info.Fields = InfoBase }), 0, NotStalled},
		"restarted":      {waiting, edit(func(s *Socket) { s.Info.TotalRetrans-- }), 0, NotStalled},
		"listener":       {waiting, edit(func(s *Socket) { s.State = Listen }), 0, NotStalled},
	} {
		if got := (Change{c.before, c.after}).Stalled(c.backoff); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestStallString(t *testing.T) {
	for s, want := range map[Stall]string{
		NotStalled: "not stalled", StalledUnanswered: "unanswered", StalledZeroWindow: "zero window", 7: "Stall(7)",
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
