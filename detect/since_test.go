package detect

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Since when the rows are so, as each kind of socket tells it.
func TestBegun(t *testing.T) {
	h := sysctlHost(t, "net.ipv4.tcp_fin_timeout = 40")
	info := func(sent, recv, ack time.Duration) sockdiag.Socket {
		return sockdiag.Socket{Fields: sockdiag.FieldInfo, Info: sockdiag.TCPInfo{LastDataSent: sent, LastDataRecv: recv, LastAckRecv: ack}}
	}
	in := func(state sockdiag.State, s sockdiag.Socket) sockdiag.Socket {
		s.State = state
		return s
	}
	for _, tt := range []struct {
		name string
		row  sockdiag.Socket
		want time.Duration
	}{
		{"TIME_WAIT", sockdiag.Socket{State: sockdiag.TimeWait, Timer: sockdiag.TimerTimeWait, Expires: 13 * time.Second}, 47 * time.Second},
		{"TIME_WAIT of text", sockdiag.Socket{State: sockdiag.TimeWait, Fields: sockdiag.UnknownTimer}, 0},
		{"FIN_WAIT2", sockdiag.Socket{State: sockdiag.FinWait2, Timer: sockdiag.TimerTimeWait, Expires: 13 * time.Second}, 27 * time.Second},
		{"FIN_WAIT2 before the setting", sockdiag.Socket{State: sockdiag.FinWait2, Timer: sockdiag.TimerTimeWait, Expires: 50 * time.Second}, 0},
		{"FIN_WAIT2, open", in(sockdiag.FinWait2, info(9, 9, 7)), 7},
		{"SYN_RECV", sockdiag.Socket{State: sockdiag.SynRecv, Retransmits: 8}, 0},
		{"SYN_SENT", sockdiag.Socket{State: sockdiag.SynSent, Retransmits: 6}, 6 * time.Second},
		{"ESTABLISHED", in(sockdiag.Established, info(9, 8, 1)), 8},
		{"ESTABLISHED without tcp_info", sockdiag.Socket{State: sockdiag.Established}, 0},
		{"LAST_ACK", in(sockdiag.LastAck, info(9, 8, 3)), 3},
		{"LISTEN", in(sockdiag.Listen, info(9, 8, 3)), 0},
	} {
		want := now.Add(-tt.want)
		if tt.want == 0 {
			want = time.Time{}
		}
		if got := h.begun([]sockdiag.Socket{{}, tt.row, {State: sockdiag.TimeWait}}); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
		if got := new(Host).begun([]sockdiag.Socket{tt.row}); !got.IsZero() {
			t.Errorf("%s, without Now: %v", tt.name, got)
		}
	}
	rows := held(40, sockdiag.TimeWait, "198.51.100.7")
	for i := range rows {
		rows[i].Timer, rows[i].Expires = sockdiag.TimerTimeWait, 20*time.Second
	}
	if f := find(t, PerSource{}, Host{Now: now, Sockets: append(rows, listener443())}); len(f) != 1 || !f[0].Since.Equal(now.Add(-40*time.Second)) {
		t.Errorf("PerSource: %+v", f)
	}
	idle := idling(held(61, sockdiag.Established, "198.51.100.7"), nil)
	if f := find(t, IdleFlood{}, Host{Now: now, Sockets: append(idle, listener443())}); len(f) != 1 || !f[0].Since.Equal(now.Add(-time.Hour)) {
		t.Errorf("IdleFlood: %+v", f)
	}
}

// What the host has set is not advised again, and told.
func TestRemedies(t *testing.T) {
	flood := append(unmet(held(1, 0, addresses(65, "198.51.100.%d")...), 1), listener443())
	orphans := pileOf(61, sockdiag.FinWait1, orphaned)
	for _, tt := range []struct {
		d       Detector
		rows    []sockdiag.Socket
		sysctls string
		advised []string
		not     string
		want    Severity
	}{
		{SynFlood{}, flood, "", []string{"tcp_syncookies=1`", "tcp_max_syn_backlog=65536`", "tcp_synack_retries=3`"}, "", Warning},
		{SynFlood{}, flood, "net.ipv4.tcp_syncookies = 1", []string{"tcp_synack_retries=3`"}, "tcp_syncookies", Warning},
		{SynFlood{}, flood, "net.ipv4.tcp_syncookies = 0\nnet.ipv4.tcp_synack_retries = 2", []string{"tcp_syncookies=1`"}, "tcp_synack_retries", Warning},
		{Leaks{}, orphans, "", []string{"tcp_orphan_retries=1`"}, "", Warning},
		{Leaks{}, orphans, "net.ipv4.tcp_orphan_retries = 1", []string{"ss -K"}, "tcp_orphan_retries", Warning},
		{Leaks{}, orphans, "net.ipv4.tcp_max_orphans = 65536", []string{"tcp_orphan_retries=1`"}, "", Warning},
		{Leaks{}, orphans, "net.ipv4.tcp_max_orphans = 122", []string{"ss -K"}, "", Critical},
		{Leaks{}, pileOf(1001, sockdiag.FinWait2, orphaned), "net.ipv4.tcp_fin_timeout = 30", []string{"ss -K state fin-wait-2"}, "tcp_fin_timeout", Info},
		{Leaks{}, pileOf(1001, sockdiag.FinWait2, orphaned), "net.ipv4.tcp_fin_timeout = 31", []string{"tcp_fin_timeout=30`"}, "", Info},
		{PerSource{}, append(unmet(held(21, 0, "198.51.100.7"), 1), listener443()), "", []string{"tcp_syncookies=1`"}, "", Warning},
		{PerSource{}, append(held(61, sockdiag.Established, "198.51.100.7"), listener443()), "net.ipv4.tcp_keepalive_time = 1200",
			[]string{"SO_KEEPALIVE"}, "tcp_keepalive_time", Warning},
		{IdleFlood{}, append(idling(held(61, sockdiag.Established, "198.51.100.7"), nil), listener443()), "net.ipv4.tcp_keepalive_time = 7200",
			[]string{"tcp_keepalive_time=1200`"}, "", Warning},
		{Census{}, pileOf(501, sockdiag.SynRecv), "net.ipv4.tcp_synack_retries = 3", []string{"tcp_syncookies=1`"}, "tcp_synack_retries", Warning},
		{Census{}, pileOf(501, sockdiag.LastAck), "net.ipv4.tcp_orphan_retries = 0", []string{"tcp_orphan_retries=1`"}, "", Info},
	} {
		h := Host{Now: now}
		if tt.sysctls != "" {
			h = sysctlHost(t, tt.sysctls)
		}
		h.Sockets = tt.rows
		found := find(t, tt.d, h)
		if len(found) != 1 || found[0].Severity != tt.want || !mentions(text(found[0].Fix), tt.advised...) ||
			tt.not != "" && mentions(text(found[0].Fix), tt.not) || tt.sysctls != "" && !mentions(tt.sysctls, found[0].Evidence.Settings[0].String()) {
			t.Errorf("%q: %+v", tt.sysctls, found)
		}
	}
}

func listenCounters(t *testing.T, overflows string) sockdiag.Counters {
	t.Helper()
	c, err := sockdiag.ReadCounters(fstest.MapFS{"net/netstat": {Data: []byte("TcpExt: ListenOverflows\nTcpExt: " + overflows + "\n")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Queues that were full are counted, where none is now.
func TestOverflows(t *testing.T) {
	h := Host{Now: now.Add(-time.Minute), Counters: listenCounters(t, "7")}
	before := h.Counted()
	for _, tt := range []struct {
		host     Host
		count    uint64
		severity Severity
	}{
		{Host{Now: now}, 0, 0},
		{Host{Now: now, Counters: listenCounters(t, "0")}, 0, 0},
		{Host{Now: now, Counters: listenCounters(t, "9")}, 9, Info},
		{Host{Now: now, Counters: listenCounters(t, "9"), Earlier: before}, 2, Warning},
		{Host{Now: now, Counters: listenCounters(t, "7"), Earlier: before}, 0, 0},
		{Host{Now: now, Counters: listenCounters(t, "1"), Earlier: before}, 0, 0}, // another namespace
		{Host{Now: now, Counters: listenCounters(t, "9"), Earlier: Earlier{At: before.At}}, 9, Info},
	} {
		found := Find(tt.host, AcceptQueue{})
		if len(found) == 1 != (tt.severity != 0) || tt.severity != 0 && (found[0].Severity != tt.severity || found[0].Count != tt.count ||
			found[0].Since.IsZero() != (tt.severity == Info) || (len(found[0].Evidence.Missing) > 0) != (tt.severity == Info)) {
			t.Errorf("%+v: %v", tt, found)
		}
		tt.host.Sockets = []sockdiag.Socket{listener(sockdiag.IPv4, "10.1.32.70:443", 5, 4)}
		if found := Find(tt.host, AcceptQueue{}); len(found) != 1 || found[0].Subject != "listener 10.1.32.70:443" {
			t.Errorf("and one is full: %v", found)
		}
	}
}
