package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Counters are what the kernel has counted in a network namespace since it was
// made, and how many sockets there are now (/proc/net/snmp, netstat, sockstat,
// sockstat6). A value that the kernel does not have is zero; Has tells.
type Counters struct {
	ActiveOpens, PassiveOpens, AttemptFails, EstabResets uint64 // connections begun, accepted, failed, reset
	InSegs, OutSegs, RetransSegs, InErrs, OutRsts        uint64 // segments; OutRsts sent with RST

	// ListenOverflows is how many handshakes found the accept queue full, and
	// ListenDrops those that were dropped for it or another reason.
	ListenOverflows, ListenDrops uint64
	// ReqQFullDrop and ReqQFullDoCookies are what was done with a SYN that
	// found the queue of handshakes full: dropped, or answered with a cookie.
	ReqQFullDrop, ReqQFullDoCookies                        uint64
	SyncookiesSent, SyncookiesRecv, SyncookiesFailed       uint64
	TimeWaited, TimeWaitRecycled, TimeWaitOverflow         uint64 // TW, TWRecycled, TCPTimeWaitOverflow
	AbortOnData, AbortOnClose, AbortOnMemory               uint64 // connections ended with RST: data for or in a closed socket, tcp_mem or tcp_max_orphans
	AbortOnTimeout, AbortOnLinger, AbortFailed             uint64
	PAWSActive, PAWSEstab                                  uint64 // packets refused for their timestamp
	Timeouts, LostRetransmit, SynRetrans, ZeroWindowDrop   uint64
	MemoryPressures, RcvPruned, RcvCollapsed, BacklogDrop  uint64
	UDPInErrors, UDPNoPorts, UDPRcvbufErrors, UDPSndErrors uint64

	// Now: sockets of all families, and of TCP those established or in
	// CloseWait, hashed, without an owner, in TimeWait, allocated (on the
	// host), and the memory of all, in pages (of the host).
	Sockets, Established, TCPInUse, TCP6InUse, TCPOrphans, TCPTimeWait, TCPAllocated, TCPMemory uint64
	UDPInUse, UDP6InUse, UDPMemory, RawInUse                                                    uint64

	present uint64 // by place in counters; see Has
}

// counters are the names in the files, after that of their line.
var counters = []struct {
	name string
	ptr  func(*Counters) *uint64
}{
	{"Tcp.ActiveOpens", func(c *Counters) *uint64 { return &c.ActiveOpens }},
	{"Tcp.PassiveOpens", func(c *Counters) *uint64 { return &c.PassiveOpens }},
	{"Tcp.AttemptFails", func(c *Counters) *uint64 { return &c.AttemptFails }},
	{"Tcp.EstabResets", func(c *Counters) *uint64 { return &c.EstabResets }},
	{"Tcp.InSegs", func(c *Counters) *uint64 { return &c.InSegs }},
	{"Tcp.OutSegs", func(c *Counters) *uint64 { return &c.OutSegs }},
	{"Tcp.RetransSegs", func(c *Counters) *uint64 { return &c.RetransSegs }},
	{"Tcp.InErrs", func(c *Counters) *uint64 { return &c.InErrs }},
	{"Tcp.OutRsts", func(c *Counters) *uint64 { return &c.OutRsts }},
	{"TcpExt.ListenOverflows", func(c *Counters) *uint64 { return &c.ListenOverflows }},
	{"TcpExt.ListenDrops", func(c *Counters) *uint64 { return &c.ListenDrops }},
	{"TcpExt.TCPReqQFullDrop", func(c *Counters) *uint64 { return &c.ReqQFullDrop }},
	{"TcpExt.TCPReqQFullDoCookies", func(c *Counters) *uint64 { return &c.ReqQFullDoCookies }},
	{"TcpExt.SyncookiesSent", func(c *Counters) *uint64 { return &c.SyncookiesSent }},
	{"TcpExt.SyncookiesRecv", func(c *Counters) *uint64 { return &c.SyncookiesRecv }},
	{"TcpExt.SyncookiesFailed", func(c *Counters) *uint64 { return &c.SyncookiesFailed }},
	{"TcpExt.TW", func(c *Counters) *uint64 { return &c.TimeWaited }},
	{"TcpExt.TWRecycled", func(c *Counters) *uint64 { return &c.TimeWaitRecycled }},
	{"TcpExt.TCPTimeWaitOverflow", func(c *Counters) *uint64 { return &c.TimeWaitOverflow }},
	{"TcpExt.TCPAbortOnData", func(c *Counters) *uint64 { return &c.AbortOnData }},
	{"TcpExt.TCPAbortOnClose", func(c *Counters) *uint64 { return &c.AbortOnClose }},
	{"TcpExt.TCPAbortOnMemory", func(c *Counters) *uint64 { return &c.AbortOnMemory }},
	{"TcpExt.TCPAbortOnTimeout", func(c *Counters) *uint64 { return &c.AbortOnTimeout }},
	{"TcpExt.TCPAbortOnLinger", func(c *Counters) *uint64 { return &c.AbortOnLinger }},
	{"TcpExt.TCPAbortFailed", func(c *Counters) *uint64 { return &c.AbortFailed }},
	{"TcpExt.PAWSActive", func(c *Counters) *uint64 { return &c.PAWSActive }},
	{"TcpExt.PAWSEstab", func(c *Counters) *uint64 { return &c.PAWSEstab }},
	{"TcpExt.TCPTimeouts", func(c *Counters) *uint64 { return &c.Timeouts }},
	{"TcpExt.TCPLostRetransmit", func(c *Counters) *uint64 { return &c.LostRetransmit }},
	{"TcpExt.TCPSynRetrans", func(c *Counters) *uint64 { return &c.SynRetrans }},
	{"TcpExt.TCPZeroWindowDrop", func(c *Counters) *uint64 { return &c.ZeroWindowDrop }},
	{"TcpExt.TCPMemoryPressures", func(c *Counters) *uint64 { return &c.MemoryPressures }},
	{"TcpExt.PruneCalled", func(c *Counters) *uint64 { return &c.RcvPruned }},
	{"TcpExt.TCPRcvCollapsed", func(c *Counters) *uint64 { return &c.RcvCollapsed }},
	{"TcpExt.TCPBacklogDrop", func(c *Counters) *uint64 { return &c.BacklogDrop }},
	{"Udp.InErrors", func(c *Counters) *uint64 { return &c.UDPInErrors }},
	{"Udp.NoPorts", func(c *Counters) *uint64 { return &c.UDPNoPorts }},
	{"Udp.RcvbufErrors", func(c *Counters) *uint64 { return &c.UDPRcvbufErrors }},
	{"Udp.SndbufErrors", func(c *Counters) *uint64 { return &c.UDPSndErrors }},
	{"sockets.used", func(c *Counters) *uint64 { return &c.Sockets }},
	{"Tcp.CurrEstab", func(c *Counters) *uint64 { return &c.Established }},
	{"TCP.inuse", func(c *Counters) *uint64 { return &c.TCPInUse }},
	{"TCP6.inuse", func(c *Counters) *uint64 { return &c.TCP6InUse }},
	{"TCP.orphan", func(c *Counters) *uint64 { return &c.TCPOrphans }},
	{"TCP.tw", func(c *Counters) *uint64 { return &c.TCPTimeWait }},
	{"TCP.alloc", func(c *Counters) *uint64 { return &c.TCPAllocated }},
	{"TCP.mem", func(c *Counters) *uint64 { return &c.TCPMemory }},
	{"UDP.inuse", func(c *Counters) *uint64 { return &c.UDPInUse }},
	{"UDP6.inuse", func(c *Counters) *uint64 { return &c.UDP6InUse }},
	{"UDP.mem", func(c *Counters) *uint64 { return &c.UDPMemory }},
	{"RAW.inuse", func(c *Counters) *uint64 { return &c.RawInUse }},
}

// ReadCounters reads the files below net of a /proc file system:
// ReadCounters(os.DirFS("/proc")), which shows the namespace of the process's
// first thread. It takes no privilege. What is not there is zero, as
// Counters.Has tells; that nothing is there is fs.ErrNotExist.
func ReadCounters(proc fs.FS) (Counters, error) {
	values := make(map[string]string)
	for _, file := range []string{"net/snmp", "net/netstat", "net/sockstat", "net/sockstat6"} {
		b, err := fs.ReadFile(proc, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = readCounters(string(b), values)
		}
		if err != nil {
			return Counters{}, &OpError{Op: "counters", Err: fmt.Errorf("%s: %w", file, err)}
		}
	}
	return newCounters(values)
}

// readCounters takes values by name: "TcpExt: A B" over "TcpExt: 1 2", or "TCP:
// inuse 1 orphan 0".
func readCounters(text string, values map[string]string) error {
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2:
		case names != nil && words[0] == names[0]:
			if len(words) != len(names) {
				return fmt.Errorf("%s %d values for %d names", words[0], len(words)-1, len(names)-1)
			}
			for i, name := range names {
				values[strings.TrimSuffix(names[0], ":")+"."+name] = words[i]
			}
			names = nil
		case len(words)%2 == 1 && isNumber(words[2]):
			for i := 1; i < len(words); i += 2 {
				values[strings.TrimSuffix(words[0], ":")+"."+words[i]] = words[i+1]
			}
		default:
			names = words
		}
	}
	return nil
}

func newCounters(values map[string]string) (c Counters, err error) {
	for i, counter := range counters {
		text, ok := values[counter.name]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Counters{}, &OpError{Op: "counters", Err: fmt.Errorf("%s: %q is not a number", counter.name, text)}
		}
		*counter.ptr(&c), c.present = n, c.present|1<<i
	}
	if c.present == 0 {
		return Counters{}, &OpError{Op: "counters", Err: fmt.Errorf("no net/snmp: %w", fs.ErrNotExist)}
	}
	return c, nil
}

// Has reports whether the kernel counts a name, after that of its line:
// TcpExt.ListenDrops, TCP.orphan.
func (c Counters) Has(name string) bool {
	for i, counter := range counters {
		if counter.name == name {
			return c.present&(1<<i) != 0
		}
	}
	return false
}
