package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Settings are the sysctls that decide how long sockets live and how many there
// can be. Those of net.* belong to a network namespace, but for TCPMemory,
// MaxOrphans and NetdevMaxBacklog, which are the host's and not shown in other
// namespaces; those of fs.* are the host's. A value that the kernel does not
// show is zero; Has tells.
type Settings struct {
	// KeepaliveTime is how long a connection is idle before SO_KEEPALIVE
	// probes it, KeepaliveInterval how long to wait between probes, and
	// KeepaliveProbes after how many unanswered it ends.
	KeepaliveTime, KeepaliveInterval time.Duration
	KeepaliveProbes                  uint64
	// Retries1 is after how many retransmissions the route is doubted, and
	// Retries2 after how many, at the longest, the connection ends.
	Retries1, Retries2 uint64
	// OrphanRetries is Retries2 of connections that no process has; 0 is 8.
	OrphanRetries uint64
	// SynRetries is how often an own SYN is sent again, and SynAckRetries
	// the answer to one.
	SynRetries, SynAckRetries uint64
	// FinTimeout is how long FinWait2 without an owner lasts.
	FinTimeout time.Duration
	// SynCookies is 0 (never), 1 (when the queue is full) or 2 (always).
	SynCookies uint64
	// MaxSynBacklog is how many handshakes a listener remembers.
	MaxSynBacklog uint64
	// Timestamps is 0 (off), 1 (with a random offset per connection) or 2.
	Timestamps uint64
	// TimeWaitReuse lets a new connection take the ports of one in TimeWait:
	// 0 never, 1 always, 2 on loopback alone.
	TimeWaitReuse uint64
	// TimeWaitRecycle breaks clients behind NAT. Linux 4.12 has no more of it.
	TimeWaitRecycle bool
	// MaxTimeWait is how many sockets may be in TimeWait, and MaxOrphans how
	// many without an owner in other states.
	MaxTimeWait, MaxOrphans uint64
	// RFC1337 ignores RST in TimeWait.
	RFC1337 bool
	// AbortOnOverflow answers with RST when the accept queue is full.
	AbortOnOverflow bool
	// TCPMemory is below what TCP is not pressed for memory, from what on,
	// and the most it gets, in pages.
	TCPMemory [3]uint64
	// TCPReceive and TCPSend are the least, the first and the largest buffer
	// of a connection, in bytes.
	TCPReceive, TCPSend [3]uint64
	// LocalPorts are the first and the last port for outgoing connections.
	LocalPorts [2]uint64
	// ReversePathAll and ReversePathDefault check the source address: 0 no,
	// 1 strict, 2 loose. The larger of all and the interface's own holds.
	ReversePathAll, ReversePathDefault uint64

	// Somaxconn bounds the backlog of listen(2).
	Somaxconn uint64
	// NetdevMaxBacklog is how many packets a CPU queues before the stack.
	NetdevMaxBacklog uint64
	// ReceiveMax and SendMax bound SO_RCVBUF and SO_SNDBUF, in bytes;
	// ReceiveDefault and SendDefault are what sockets other than of TCP begin
	// with.
	ReceiveMax, SendMax, ReceiveDefault, SendDefault uint64

	// FileMax is how many files may be open on the host, FileCount how many
	// are allocated, the unused, and FileMax again, and FilesPerProcess the
	// most that RLIMIT_NOFILE can allow.
	FileMax         uint64
	FileCount       [3]uint64
	FilesPerProcess uint64

	present uint64 // by place in sysctls; see Has
}

// sysctls are the names, and where their values go.
var sysctls = []struct {
	name string
	ptr  func(*Settings) any
}{
	{"net.ipv4.tcp_keepalive_time", func(s *Settings) any { return &s.KeepaliveTime }},
	{"net.ipv4.tcp_keepalive_intvl", func(s *Settings) any { return &s.KeepaliveInterval }},
	{"net.ipv4.tcp_keepalive_probes", func(s *Settings) any { return &s.KeepaliveProbes }},
	{"net.ipv4.tcp_retries1", func(s *Settings) any { return &s.Retries1 }},
	{"net.ipv4.tcp_retries2", func(s *Settings) any { return &s.Retries2 }},
	{"net.ipv4.tcp_orphan_retries", func(s *Settings) any { return &s.OrphanRetries }},
	{"net.ipv4.tcp_syn_retries", func(s *Settings) any { return &s.SynRetries }},
	{"net.ipv4.tcp_synack_retries", func(s *Settings) any { return &s.SynAckRetries }},
	{"net.ipv4.tcp_fin_timeout", func(s *Settings) any { return &s.FinTimeout }},
	{"net.ipv4.tcp_syncookies", func(s *Settings) any { return &s.SynCookies }},
	{"net.ipv4.tcp_max_syn_backlog", func(s *Settings) any { return &s.MaxSynBacklog }},
	{"net.ipv4.tcp_timestamps", func(s *Settings) any { return &s.Timestamps }},
	{"net.ipv4.tcp_tw_reuse", func(s *Settings) any { return &s.TimeWaitReuse }},
	{"net.ipv4.tcp_tw_recycle", func(s *Settings) any { return &s.TimeWaitRecycle }},
	{"net.ipv4.tcp_max_tw_buckets", func(s *Settings) any { return &s.MaxTimeWait }},
	{"net.ipv4.tcp_max_orphans", func(s *Settings) any { return &s.MaxOrphans }},
	{"net.ipv4.tcp_rfc1337", func(s *Settings) any { return &s.RFC1337 }},
	{"net.ipv4.tcp_abort_on_overflow", func(s *Settings) any { return &s.AbortOnOverflow }},
	{"net.ipv4.tcp_mem", func(s *Settings) any { return s.TCPMemory[:] }},
	{"net.ipv4.tcp_rmem", func(s *Settings) any { return s.TCPReceive[:] }},
	{"net.ipv4.tcp_wmem", func(s *Settings) any { return s.TCPSend[:] }},
	{"net.ipv4.ip_local_port_range", func(s *Settings) any { return s.LocalPorts[:] }},
	{"net.ipv4.conf.all.rp_filter", func(s *Settings) any { return &s.ReversePathAll }},
	{"net.ipv4.conf.default.rp_filter", func(s *Settings) any { return &s.ReversePathDefault }},
	{"net.core.somaxconn", func(s *Settings) any { return &s.Somaxconn }},
	{"net.core.netdev_max_backlog", func(s *Settings) any { return &s.NetdevMaxBacklog }},
	{"net.core.rmem_max", func(s *Settings) any { return &s.ReceiveMax }},
	{"net.core.wmem_max", func(s *Settings) any { return &s.SendMax }},
	{"net.core.rmem_default", func(s *Settings) any { return &s.ReceiveDefault }},
	{"net.core.wmem_default", func(s *Settings) any { return &s.SendDefault }},
	{"fs.file-max", func(s *Settings) any { return &s.FileMax }},
	{"fs.file-nr", func(s *Settings) any { return s.FileCount[:] }},
	{"fs.nr_open", func(s *Settings) any { return &s.FilesPerProcess }},
}

// sysctlPath is where a sysctl is below /proc.
func sysctlPath(name string) string { return "sys/" + strings.ReplaceAll(name, ".", "/") }

// ReadSettings reads the sysctls of a /proc file system:
// ReadSettings(os.DirFS("/proc")), or what SysctlFS makes of sysctl -a. It
// takes no privilege. What is not there is zero, as Settings.Has tells; that
// nothing is there is fs.ErrNotExist.
func ReadSettings(proc fs.FS) (Settings, error) {
	var s Settings
	for i, c := range sysctls {
		b, err := fs.ReadFile(proc, sysctlPath(c.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = parseSysctl(strings.Fields(string(b)), c.ptr(&s))
		}
		if err != nil {
			return Settings{}, &OpError{Op: "settings", Err: fmt.Errorf("%s: %w", c.name, err)}
		}
		s.present |= 1 << i
	}
	if s.present == 0 {
		return Settings{}, &OpError{Op: "settings", Err: fmt.Errorf("no sys/net/ipv4: %w", fs.ErrNotExist)}
	}
	return s, nil
}

// Has reports whether the kernel has the sysctl, such as
// net.ipv4.tcp_tw_recycle.
func (s Settings) Has(name string) bool {
	for i, c := range sysctls {
		if c.name == name {
			return s.present&(1<<i) != 0
		}
	}
	return false
}

func parseSysctl(words []string, to any) error {
	list, isList := to.([]uint64)
	if !isList {
		list = make([]uint64, 1)
	}
	if len(words) != len(list) {
		return fmt.Errorf("%q are not %d numbers", strings.Join(words, " "), len(list))
	}
	for i, w := range words {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", w)
		}
		list[i] = n
	}
	switch n := list[0]; v := to.(type) {
	case *uint64:
		*v = n
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
