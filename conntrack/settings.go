package conntrack

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Settings are the tracker's sysctls, net.netfilter.nf_conntrack_*, of one
// network namespace. A value that the kernel does not have is zero; Has tells.
type Settings struct {
	// Max is how many entries a namespace may have, one number for all of
	// them; Count is how many this namespace has, and Buckets how many hash
	// chains all share.
	Max, Count, Buckets uint64

	// Accounting and Timestamps add counters and times to new entries.
	Accounting, Timestamps bool
	// Checksum makes packets with a bad checksum invalid.
	Checksum bool
	// Events is 0 (none), 1 (all) or 2 (for entries made while somebody
	// listens).
	Events uint8
	// LogInvalid is the protocol whose invalid packets are logged; 255 is
	// all, 0 none.
	LogInvalid uint8

	// TCPLoose picks up connections in the middle.
	TCPLoose bool
	// TCPBeLiberal accepts packets out of the window.
	TCPBeLiberal bool
	// TCPIgnoreInvalidRST accepts RST packets out of the window.
	TCPIgnoreInvalidRST bool
	// TCPMaxRetrans is after how many retransmissions Timeouts.TCPMaxRetrans
	// begins to count.
	TCPMaxRetrans uint8

	Timeouts Timeouts

	present uint64 // by place in sysctls; see Has
}

// Timeouts are how long an entry lives after the last packet that renewed it,
// by protocol and state. Policies (nft ct timeout, -j CT --timeout) override
// those of ReadSettings per flow: see TimeoutPolicy.
type Timeouts struct {
	Generic, ICMP, ICMPv6, UDP, UDPStream, GRE, GREStream time.Duration

	TCPSynSent, TCPSynRecv, TCPEstablished, TCPFinWait, TCPCloseWait time.Duration
	TCPLastAck, TCPTimeWait, TCPClose                                time.Duration
	// TCPMaxRetrans holds after TCPMaxRetrans retransmissions, and
	// TCPUnacknowledged for ESTABLISHED entries with unacknowledged data or
	// without a reply; each only shortens.
	TCPMaxRetrans, TCPUnacknowledged time.Duration
	// TCPSynSent2 is that of simultaneous open. No sysctl sets it: only policies
	// and DefaultTimeouts have it.
	TCPSynSent2 time.Duration

	SCTPClosed, SCTPCookieWait, SCTPCookieEchoed, SCTPEstablished              time.Duration
	SCTPShutdownSent, SCTPShutdownRecd, SCTPShutdownAckSent, SCTPHeartbeatSent time.Duration
}

// TCP returns the timeout of a TCP state, 0 for one that has none.
func (t Timeouts) TCP(s TCPState) time.Duration {
	switch s {
	case TCPSynSent2:
		return cmp.Or(t.TCPSynSent2, t.TCPSynSent)
	case TCPSynSent:
		return t.TCPSynSent
	case TCPSynRecv:
		return t.TCPSynRecv
	case TCPEstablished:
		return t.TCPEstablished
	case TCPFinWait:
		return t.TCPFinWait
	case TCPCloseWait:
		return t.TCPCloseWait
	case TCPLastAck:
		return t.TCPLastAck
	case TCPTimeWait:
		return t.TCPTimeWait
	case TCPClose:
		return t.TCPClose
	}
	return 0
}

// sysctls are the names after nf_conntrack_, and where their values go.
var sysctls = []struct {
	name string
	ptr  func(*Settings) any
}{
	{"max", func(s *Settings) any { return &s.Max }},
	{"count", func(s *Settings) any { return &s.Count }},
	{"buckets", func(s *Settings) any { return &s.Buckets }},
	{"acct", func(s *Settings) any { return &s.Accounting }},
	{"timestamp", func(s *Settings) any { return &s.Timestamps }},
	{"checksum", func(s *Settings) any { return &s.Checksum }},
	{"events", func(s *Settings) any { return &s.Events }},
	{"log_invalid", func(s *Settings) any { return &s.LogInvalid }},
	{"tcp_loose", func(s *Settings) any { return &s.TCPLoose }},
	{"tcp_be_liberal", func(s *Settings) any { return &s.TCPBeLiberal }},
	{"tcp_ignore_invalid_rst", func(s *Settings) any { return &s.TCPIgnoreInvalidRST }},
	{"tcp_max_retrans", func(s *Settings) any { return &s.TCPMaxRetrans }},
	{"generic_timeout", func(s *Settings) any { return &s.Timeouts.Generic }},
	{"icmp_timeout", func(s *Settings) any { return &s.Timeouts.ICMP }},
	{"icmpv6_timeout", func(s *Settings) any { return &s.Timeouts.ICMPv6 }},
	{"udp_timeout", func(s *Settings) any { return &s.Timeouts.UDP }},
	{"udp_timeout_stream", func(s *Settings) any { return &s.Timeouts.UDPStream }},
	{"gre_timeout", func(s *Settings) any { return &s.Timeouts.GRE }},
	{"gre_timeout_stream", func(s *Settings) any { return &s.Timeouts.GREStream }},
	{"tcp_timeout_syn_sent", func(s *Settings) any { return &s.Timeouts.TCPSynSent }},
	{"tcp_timeout_syn_recv", func(s *Settings) any { return &s.Timeouts.TCPSynRecv }},
	{"tcp_timeout_established", func(s *Settings) any { return &s.Timeouts.TCPEstablished }},
	{"tcp_timeout_fin_wait", func(s *Settings) any { return &s.Timeouts.TCPFinWait }},
	{"tcp_timeout_close_wait", func(s *Settings) any { return &s.Timeouts.TCPCloseWait }},
	{"tcp_timeout_last_ack", func(s *Settings) any { return &s.Timeouts.TCPLastAck }},
	{"tcp_timeout_time_wait", func(s *Settings) any { return &s.Timeouts.TCPTimeWait }},
	{"tcp_timeout_close", func(s *Settings) any { return &s.Timeouts.TCPClose }},
	{"tcp_timeout_max_retrans", func(s *Settings) any { return &s.Timeouts.TCPMaxRetrans }},
	{"tcp_timeout_unacknowledged", func(s *Settings) any { return &s.Timeouts.TCPUnacknowledged }},
	{"sctp_timeout_closed", func(s *Settings) any { return &s.Timeouts.SCTPClosed }},
	{"sctp_timeout_cookie_wait", func(s *Settings) any { return &s.Timeouts.SCTPCookieWait }},
	{"sctp_timeout_cookie_echoed", func(s *Settings) any { return &s.Timeouts.SCTPCookieEchoed }},
	{"sctp_timeout_established", func(s *Settings) any { return &s.Timeouts.SCTPEstablished }},
	{"sctp_timeout_shutdown_sent", func(s *Settings) any { return &s.Timeouts.SCTPShutdownSent }},
	{"sctp_timeout_shutdown_recd", func(s *Settings) any { return &s.Timeouts.SCTPShutdownRecd }},
	{"sctp_timeout_shutdown_ack_sent", func(s *Settings) any { return &s.Timeouts.SCTPShutdownAckSent }},
	{"sctp_timeout_heartbeat_sent", func(s *Settings) any { return &s.Timeouts.SCTPHeartbeatSent }},
}

const sysctlPrefix = "nf_conntrack_"

// ReadSettings reads the sysctls below sys/net/netfilter of a /proc file
// system: ReadSettings(os.DirFS("/proc")). It takes no privilege. What is not
// there is zero, as Settings.Has tells; that nothing is there is
// fs.ErrNotExist.
func ReadSettings(proc fs.FS) (Settings, error) {
	var s Settings
	for i, c := range sysctls {
		path := "sys/net/netfilter/" + sysctlPrefix + c.name
		b, err := fs.ReadFile(proc, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = parseSysctl(strings.TrimSpace(string(b)), c.ptr(&s))
		}
		if err != nil {
			return Settings{}, opError("settings", fmt.Errorf("%s: %w", path, err))
		}
		s.present |= 1 << i
	}
	if s.present == 0 {
		return Settings{}, opError("settings", fmt.Errorf(
			"no sys/net/netfilter/nf_conntrack_*: %w (modprobe nf_conntrack)", fs.ErrNotExist))
	}
	return s, nil
}

// Has reports whether the kernel has the sysctl net.netfilter.<name>.
func (s Settings) Has(name string) bool {
	short, ok := strings.CutPrefix(name, sysctlPrefix)
	for i, c := range sysctls {
		if ok && c.name == short {
			return s.present&(1<<i) != 0
		}
	}
	return false
}

func parseSysctl(text string, to any) error {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not a number", text)
	}
	switch v := to.(type) {
	case *uint64:
		*v = n
	case *uint8:
		if n > 255 {
			return fmt.Errorf("%d is more than 255", n)
		}
		*v = uint8(n)
	case *bool:
		*v = n != 0
	case *time.Duration:
		if n > uint64(1<<63-1)/uint64(time.Second) {
			return fmt.Errorf("%d seconds are too many", n)
		}
		*v = time.Duration(n) * time.Second
	}
	return nil
}
