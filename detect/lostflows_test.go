package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	query = "ESTABLISHED 10.1.32.70 40000 10.1.41.192 5432"
	// unrelated keeps the table from being empty.
	unrelated = "tcp 6 431999 ESTABLISHED src=10.1.99.5 dst=10.1.32.70 sport=1031 dport=23 src=10.1.32.70 dst=10.1.99.5 sport=23 dport=1031 [ASSURED] use=1"
	queried   = "tcp 6 431999 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=5432 src=10.1.41.192 dst=10.1.32.70 sport=5432 dport=40000 [ASSURED] use=1"
	answered  = "tcp 6 431999 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=5432 dport=40000 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=5432 [ASSURED] use=1"
)

func TestLostFlows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flows   []string
		sockets []string
		want    []Severity
	}{
		{"no entry", []string{unrelated}, []string{query}, []Severity{Critical}},
		{"its own entry", []string{unrelated, queried}, []string{query}, nil},
		{"the peer's entry", []string{unrelated, answered}, []string{query}, nil},
		{"CLOSE_WAIT", []string{unrelated}, []string{"CLOSE_WAIT 10.1.32.70 9102 10.1.41.192 51522"}, []Severity{Critical}},
		{"CLOSE_WAIT with an entry", []string{unrelated, closing}, []string{"CLOSE_WAIT 10.1.32.70 9102 10.1.41.192 51522"}, nil},
		{"FIN_WAIT1", []string{unrelated}, []string{"FIN_WAIT1 10.1.32.70 9102 10.1.41.192 51522"}, []Severity{Critical}},
		{"FIN_WAIT2", []string{unrelated}, []string{"FIN_WAIT2 10.1.32.70 9102 10.1.41.192 51522"}, []Severity{Critical}},
		{"LAST_ACK", []string{unrelated}, []string{"LAST_ACK 10.1.32.70 9102 10.1.41.192 51522"}, []Severity{Critical}},
		{"no connection, or over", []string{unrelated}, []string{
			"LISTEN 10.1.32.70 9102 0.0.0.0 0", "TIME_WAIT 10.1.32.70 9102 10.1.41.192 51522",
			"SYN_SENT 10.1.32.70 9102 10.1.41.192 51522", "SYN_RECV 10.1.32.70 9102 10.1.41.192 51522",
			"CLOSE 10.1.32.70 9102 0.0.0.0 0", "CLOSING 10.1.32.70 9102 10.1.41.192 51522",
		}, nil},
		{"one of two", []string{unrelated, queried}, []string{query, "ESTABLISHED 10.1.32.70 40001 10.1.41.192 5432"}, []Severity{Critical}},
		{"told twice", []string{unrelated, queried}, []string{query, query}, nil},
		{"the entry of another protocol", []string{unrelated,
			"udp 17 20 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=5432 src=10.1.41.192 dst=10.1.32.70 sport=5432 dport=40000 use=1"},
			[]string{query}, []Severity{Critical}},
		{"redirected", []string{"tcp 6 431999 ESTABLISHED src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=80 src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 [ASSURED] use=1"},
			[]string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51522"}, nil},
		{"source translated", []string{"tcp 6 431999 ESTABLISHED src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=5432 src=10.1.41.192 dst=10.1.32.71 sport=5432 dport=1024 [ASSURED] use=1"},
			[]string{query}, nil},
		{"offloaded", []string{"tcp 6 src=10.1.32.70 dst=10.1.41.192 sport=40000 dport=5432 src=10.1.41.192 dst=10.1.32.70 sport=5432 dport=40000 [OFFLOAD] use=2"},
			[]string{query}, nil},
		{"empty table", nil, []string{query}, []Severity{Warning}},
		{"to itself", []string{"tcp 6 431999 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=40000 dport=80 src=127.0.0.1 dst=127.0.0.1 sport=80 dport=40000 [ASSURED] use=1"},
			[]string{"ESTABLISHED 127.0.0.1 40000 127.0.0.1 80", "ESTABLISHED 127.0.0.1 80 127.0.0.1 40000"}, nil},
		{"to itself, no entry", []string{unrelated}, []string{"ESTABLISHED 127.0.0.1 40000 127.0.0.1 80"}, []Severity{Warning}},
		{"to its own address, no entry", []string{unrelated}, []string{"ESTABLISHED 10.1.32.70 40000 10.1.32.70 80"}, []Severity{Warning}},
		{"no socket", []string{queried}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, family func(string) string) {
				h := rows(t, family, tt.flows, tt.sockets)
				var got []Severity
				for _, f := range find(t, LostFlows{}, h) {
					got = append(got, f.Severity)
					confidence := map[Severity]Confidence{Critical: Likely, Warning: Possible}[f.Severity]
					if f.Detector != "LostFlows" || f.Confidence != confidence || len(f.Evidence.Sockets) != 1 ||
						f.Subject != connection(SocketTuple(&f.Evidence.Sockets[0])) || (f.Severity == Warning) != (len(f.Evidence.Missing) > 0) {
						t.Errorf("got %+v", f)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("findings %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// An IPv6 listener's socket with an IPv4 peer joins an IPv4 flow.
func TestLostFlowsMapped(t *testing.T) {
	h := rows(t, same, []string{answered}, []string{query})
	h.Sockets[0].Family = sockdiag.IPv6
	if found := find(t, LostFlows{}, h); len(found) != 0 {
		t.Errorf("got %v", found)
	}
}

// Both families in one table.
func TestLostFlowsBothFamilies(t *testing.T) {
	h := rows(t, same, []string{queried, unrelated}, []string{query, toIPv6.Replace(query)})
	found := find(t, LostFlows{}, h)
	if len(found) != 1 || found[0].Evidence.Sockets[0] != h.Sockets[1] {
		t.Errorf("got %v", found)
	}
}

// Each state names its own timeout.
func TestLostFlowsText(t *testing.T) {
	for state, setting := range map[sockdiag.State]Setting{
		sockdiag.Established: {"net.netfilter.nf_conntrack_tcp_timeout_established", "432000"},
		sockdiag.CloseWait:   {"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "60"},
		sockdiag.FinWait1:    {"net.netfilter.nf_conntrack_tcp_timeout_last_ack", "30"},
		sockdiag.FinWait2:    {"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "60"},
		sockdiag.LastAck:     {"net.netfilter.nf_conntrack_tcp_timeout_last_ack", "30"},
	} {
		h := rows(t, same, []string{unrelated}, []string{query})
		h.Sockets[0].State = state
		f := find(t, LostFlows{}, h)[0]
		if !slices.Equal(f.Evidence.Settings, []Setting{setting}) || !mentions(f.Cause, state.String(), setting.String()) ||
			!slices.ContainsFunc(f.Fix, func(s string) bool { return mentions(s, "`sysctl -w "+setting.Name+"=") }) {
			t.Errorf("%v: settings %v, %s, fix %q", state, f.Evidence.Settings, f.Cause, f.Fix)
		}
		if !f.Since.IsZero() || !f.Until.IsZero() {
			t.Errorf("%v: from %v until %v", state, f.Since, f.Until)
		}
	}
	h := rows(t, same, []string{unrelated}, []string{query})
	h.Settings = conntrack.Settings{}
	if f := find(t, LostFlows{}, h)[0]; !slices.Equal(f.Evidence.Missing, []string{"the tracker's settings"}) || f.Evidence.Settings != nil {
		t.Errorf("without settings: %+v", f)
	}
}

// How long the connection was idle is known with tcp_info: since the last of
// what was sent, received and acknowledged.
func TestLostFlowsIdle(t *testing.T) {
	const long, short = 400 * time.Second, 200 * time.Second
	idle := sockdiag.TCPInfo{LastDataSent: long, LastDataRecv: long, LastAckRecv: long}
	busy := idle
	busy.LastAckRecv = short
	for _, tt := range []struct {
		fields sockdiag.Fields
		info   sockdiag.TCPInfo
		want   bool
	}{
		{sockdiag.FieldInfo, idle, true},
		{sockdiag.FieldInfo, busy, false},
		{0, sockdiag.TCPInfo{}, false},
	} {
		h := rows(t, same, []string{unrelated}, []string{query})
		h.Settings = settings(t, map[string]string{"tcp_timeout_established": "300"})
		h.Sockets[0].Fields, h.Sockets[0].Info = tt.fields, tt.info
		if f := find(t, LostFlows{}, h)[0]; mentions(f.Cause, "idle for (400s)") != tt.want {
			t.Errorf("%+v: %s", tt.info, f.Cause)
		}
	}
}

const never = -1 // no timer

func TestLostFlowsEnding(t *testing.T) {
	for _, tt := range []struct {
		name       string
		left       time.Duration // of the entry
		keepalive  time.Duration
		change     func(*Host)
		confidence Confidence // Unknown: nothing is found
	}{
		{"keep-alive too late", 300, 7200, nil, Likely},
		{"keep-alive in time", 300, 299, nil, Unknown},
		{"keep-alive just in time", 300, 300, nil, Unknown},
		{"no timer, young", 431999, never, nil, Unknown},
		{"no timer, an hour left", 3600, never, nil, Possible},
		{"no timer, more than an hour left", 3601, never, nil, Unknown},
		{"no timer, half gone", 150, never, func(h *Host) { h.Settings = settings(t, map[string]string{"tcp_timeout_established": "300"}) }, Possible},
		{"no timer, not yet half gone", 151, never, func(h *Host) { h.Settings = settings(t, map[string]string{"tcp_timeout_established": "300"}) }, Unknown},
		{"no timer, settings unknown", 10, never, func(h *Host) { h.Settings = conntrack.Settings{} }, Unknown},
		{"about to send", 1, never, func(h *Host) { h.Sockets[0].Timer = sockdiag.TimerOn }, Unknown},
		{"timeout unknown", 300, 7200, func(h *Host) { h.Flows[0].Fields &^= conntrack.FieldTimeout }, Unknown},
		{"offloaded", 300, 7200, func(h *Host) { h.Flows[0].Status |= conntrack.Offload }, Unknown},
		{"FIN_WAIT2 that a process has", 20, 60, func(h *Host) { h.Sockets[0].State = sockdiag.FinWait2 }, Likely},
		{"FIN_WAIT2 that no process has", 20, 60, func(h *Host) { h.Sockets[0].State, h.Sockets[0].Inode = sockdiag.FinWait2, 0 }, Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, family func(string) string) {
				h := rows(t, family, []string{queried}, []string{query})
				h.Flows[0].Timeout = tt.left * time.Second
				if tt.keepalive != never {
					h.Sockets[0].Timer, h.Sockets[0].Expires = sockdiag.TimerKeepalive, tt.keepalive*time.Second
				}
				if tt.change != nil {
					tt.change(&h)
				}
				checkEnding(t, h, tt.confidence)
			})
		})
	}
}

func checkEnding(t *testing.T, h Host, want Confidence) {
	t.Helper()
	found := find(t, LostFlows{}, h)
	if want == Unknown {
		if len(found) != 0 {
			t.Errorf("got %v", found)
		}
		return
	}
	if len(found) != 1 {
		t.Fatalf("%d findings: %v", len(found), found)
	}
	f, entry := found[0], h.Flows[0]
	if f.Severity != Warning || f.Confidence != want || !f.Until.Equal(now.Add(entry.Timeout)) ||
		!slices.Equal(f.Evidence.Flows, h.Flows) || !slices.Equal(f.Evidence.Sockets, h.Sockets) || len(f.Evidence.Settings) != 1 {
		t.Errorf("got %+v", f)
	}
	if !mentions(f.Cause, "entry ends in "+seconds(entry.Timeout)) {
		t.Error(f.Cause)
	}
	if keepalive := "keep-alive in " + seconds(h.Sockets[0].Expires); mentions(f.Cause, keepalive) != (want == Likely) {
		t.Error(f.Cause)
	}
	h.Now = time.Time{}
	if f := Find(h, LostFlows{})[0]; !f.Until.IsZero() {
		t.Errorf("without Now, until %v", f.Until)
	}
}

// Of two rows of one connection, as a dump can give them, the first is told.
func TestLostFlowsRowTwice(t *testing.T) {
	first, second := socket(t, query), socket(t, query)
	second.Inode, second.RecvQueue = 9, 77
	found := find(t, LostFlows{}, Host{Now: now, Sockets: []sockdiag.Socket{first, second}})
	if len(found) != 1 || len(found[0].Evidence.Sockets) != 1 || found[0].Evidence.Sockets[0].Inode != first.Inode {
		t.Errorf("got %+v", found)
	}
}
