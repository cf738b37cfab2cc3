package conntrack

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// sysctlFS is a /proc with these sysctls.
func sysctlFS(values map[string]string) fstest.MapFS {
	m := fstest.MapFS{"sys/net/netfilter/nf_log/0": {Data: []byte("NONE\n")}}
	for name, v := range values {
		m["sys/net/netfilter/nf_conntrack_"+name] = &fstest.MapFile{Data: []byte(v + "\n")}
	}
	return m
}

// TestReadSettings gives each sysctl a value of its own.
func TestReadSettings(t *testing.T) {
	got, err := ReadSettings(sysctlFS(map[string]string{
		"max": "262144", "count": "17", "buckets": "65536",
		"acct": "1", "timestamp": "0", "checksum": "1", "events": "2", "log_invalid": "255",
		"tcp_loose": "1", "tcp_be_liberal": "0", "tcp_ignore_invalid_rst": "1", "tcp_max_retrans": "3",
		"generic_timeout": "600", "icmp_timeout": "30", "icmpv6_timeout": "31",
		"udp_timeout": "32", "udp_timeout_stream": "120", "gre_timeout": "33", "gre_timeout_stream": "180",
		"tcp_timeout_syn_sent": "121", "tcp_timeout_syn_recv": "60", "tcp_timeout_established": "432000",
		"tcp_timeout_fin_wait": "122", "tcp_timeout_close_wait": "61", "tcp_timeout_last_ack": "34",
		"tcp_timeout_time_wait": "123", "tcp_timeout_close": "10", "tcp_timeout_max_retrans": "300",
		"tcp_timeout_unacknowledged": "301", "a_later_one": "x",
		"sctp_timeout_closed": "11", "sctp_timeout_cookie_wait": "12", "sctp_timeout_cookie_echoed": "13",
		"sctp_timeout_established": "14", "sctp_timeout_shutdown_sent": "15", "sctp_timeout_shutdown_recd": "16",
		"sctp_timeout_shutdown_ack_sent": "17", "sctp_timeout_heartbeat_sent": "18",
	}))
	want := Settings{
		Max: 262144, Count: 17, Buckets: 65536,
		Accounting: true, Checksum: true, Events: 2, LogInvalid: 255,
		TCPLoose: true, TCPIgnoreInvalidRST: true, TCPMaxRetrans: 3,
		Timeouts: Timeouts{
			Generic: 10 * time.Minute, ICMP: 30 * time.Second, ICMPv6: 31 * time.Second,
			UDP: 32 * time.Second, UDPStream: 2 * time.Minute, GRE: 33 * time.Second, GREStream: 3 * time.Minute,
			TCPSynSent: 121 * time.Second, TCPSynRecv: time.Minute, TCPEstablished: 120 * time.Hour,
			TCPFinWait: 122 * time.Second, TCPCloseWait: 61 * time.Second, TCPLastAck: 34 * time.Second,
			TCPTimeWait: 123 * time.Second, TCPClose: 10 * time.Second,
			TCPMaxRetrans: 5 * time.Minute, TCPUnacknowledged: 301 * time.Second,
			SCTPClosed: 11 * time.Second, SCTPCookieWait: 12 * time.Second, SCTPCookieEchoed: 13 * time.Second,
			SCTPEstablished: 14 * time.Second, SCTPShutdownSent: 15 * time.Second, SCTPShutdownRecd: 16 * time.Second,
			SCTPShutdownAckSent: 17 * time.Second, SCTPHeartbeatSent: 18 * time.Second,
		},
		present: 1<<len(sysctls) - 1,
	}
	if got != want || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for _, name := range []string{"max", "nf_conntrack_a_later_one", "nf_conntrack_", ""} {
		if got.Has(name) {
			t.Errorf("has %q", name)
		}
	}
}

func TestReadSettingsMissing(t *testing.T) {
	s, err := ReadSettings(sysctlFS(map[string]string{"max": "0", "tcp_timeout_close": "10"}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"nf_conntrack_max": true, "nf_conntrack_tcp_timeout_close": true,
		"nf_conntrack_count": false, "nf_conntrack_tcp_ignore_invalid_rst": false,
	} {
		if s.Has(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	if s.Timeouts.TCPClose != 10*time.Second || s.Timeouts.TCPTimeWait != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestReadSettingsErrors(t *testing.T) {
	for name, tt := range map[string]struct{ sysctl, value, want string }{
		"empty":         {"max", "", `nf_conntrack_max: "" is not a number`},
		"garbage":       {"max", "12 monkeys", `nf_conntrack_max: "12 monkeys" is not a number`},
		"negative":      {"count", "-1", `nf_conntrack_count: "-1" is not a number`},
		"beyond int64":  {"count", "9223372036854775808", `is not a number`},
		"beyond a byte": {"events", "256", `nf_conntrack_events: 256 is more than 255`},
		"too long":      {"udp_timeout", "9223372037", `nf_conntrack_udp_timeout: 9223372037 seconds are too many`},
		"not a bool":    {"acct", "yes", `nf_conntrack_acct: "yes" is not a number`},
	} {
		s, err := ReadSettings(sysctlFS(map[string]string{"buckets": "1", tt.sysctl: tt.value}))
		if !isOp(err, "settings") || !strings.Contains(err.Error(), tt.want) || s != (Settings{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	s, err := ReadSettings(sysctlFS(map[string]string{"udp_timeout": "9223372036"}))
	if err != nil || s.Timeouts.UDP != 9223372036*time.Second {
		t.Errorf("the most seconds: %+v, %v", s, err)
	}
}

func TestReadSettingsNothing(t *testing.T) {
	s, err := ReadSettings(sysctlFS(nil))
	if !errors.Is(err, fs.ErrNotExist) || !isOp(err, "settings") || !strings.Contains(err.Error(), "modprobe nf_conntrack") || s != (Settings{}) {
		t.Errorf("got %+v, %v", s, err)
	}
	refused := refusingFS{}
	if _, err := ReadSettings(refused); !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("refused: %v", err)
	}
}

// refusingFS is a /proc that may not be read.
type refusingFS struct{}

func (refusingFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestTimeoutsTCP(t *testing.T) {
	timeouts := Timeouts{TCPSynSent: 1, TCPSynRecv: 2, TCPEstablished: 3, TCPFinWait: 4, TCPCloseWait: 5,
		TCPLastAck: 6, TCPTimeWait: 7, TCPClose: 8}
	for s, want := range map[TCPState]time.Duration{
		TCPNone: 0, TCPSynSent: 1, TCPSynRecv: 2, TCPEstablished: 3, TCPFinWait: 4, TCPCloseWait: 5,
		TCPLastAck: 6, TCPTimeWait: 7, TCPClose: 8, TCPSynSent2: 1, 10: 0,
	} {
		if got := timeouts.TCP(s); got != want {
			t.Errorf("%v: %d, want %d", s, got, want)
		}
	}
	timeouts.TCPSynSent2 = 9
	if got := timeouts.TCP(TCPSynSent2); got != 9 {
		t.Errorf("SYN_SENT2 of its own: %d", got)
	}
}

// TestReadSettingsLive reads this machine's, which takes no privilege.
func TestReadSettingsLive(t *testing.T) {
	s, err := ReadSettings(os.DirFS("/proc"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	checkSettings(t, s)
}

// checkSettings checks what holds on any kernel with its tracker loaded.
func checkSettings(t *testing.T, s Settings) {
	t.Helper()
	for _, name := range []string{"max", "count", "buckets", "tcp_loose", "tcp_timeout_established", "udp_timeout"} {
		if !s.Has("nf_conntrack_" + name) {
			t.Errorf("no %s", name)
		}
	}
	if s.Max == 0 || s.Buckets == 0 || s.Timeouts.TCPEstablished <= s.Timeouts.TCPClose || s.Timeouts.UDP < time.Second {
		t.Errorf("got %+v", s)
	}
}
