package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Host is what is known of one host, or of one network namespace.
type Host struct {
	// Now is when the rows were read.
	Now     time.Time
	Flows   []conntrack.Flow
	Sockets []sockdiag.Socket
	// Settings are the tracker's, and Sysctls those of sockets; the zero
	// Settings are not known.
	Settings conntrack.Settings
	Sysctls  sockdiag.Settings
	// Old are settings of old kernels: see OldSettings.
	Old []Setting
	// Kernel is the release of the kernel (uname -r), such as 6.12.48-amd64;
	// empty is not known.
	Kernel string
	// Usage is how full the tracker is; the zero Usage is not known.
	Usage conntrack.Usage
	// Stats are the tracker's counters of each processor; nil is not known.
	Stats []conntrack.Stats
	// Counters are those of the kernel's sockets; the zero Counters is not
	// known.
	Counters sockdiag.Counters
	// Earlier is an earlier reading of what counts; the zero Earlier is none.
	Earlier Earlier
	// Log are lines of the kernel's log, as dmesg(1) shows them. Those that do
	// not matter may be among them.
	Log []string
	// Addrs are the host's own addresses, by which its own flows are told from
	// those it forwards. The local addresses of Sockets count as such anyway.
	Addrs []netip.Addr
	// Files are the open files of processes, of one each.
	Files []OpenFiles
	// Holders are the processes that have a socket open, by the socket's inode
	// number: what Holders.Of of sockdiag tells. Nil is not known.
	Holders map[uint32][]sockdiag.Holder
}

// OpenFiles is how many files a process has open, and how many it may. With the
// zero Process it is those of the whole system (fs.file-nr, fs.file-max).
type OpenFiles struct {
	Process sockdiag.Process
	sockdiag.Descriptors
}

// Earlier is what counted at an earlier instant. A detector that compares finds
// nothing when At is not before Host.Now.
type Earlier struct {
	At       time.Time
	Usage    conntrack.Usage
	Stats    []conntrack.Stats
	Counters sockdiag.Counters
	Files    []OpenFiles
}

// Counted returns what counts in h, to be the Earlier of a later Host.
func (h *Host) Counted() Earlier {
	return Earlier{h.Now, h.usage(), h.Stats, h.Counters, h.Files}
}

// since returns the time from the earlier reading to now, if there is one and
// the clock went forward.
func (h *Host) since() (time.Duration, bool) {
	if h.Earlier.At.IsZero() || !h.Earlier.At.Before(h.Now) {
		return 0, false
	}
	return h.Now.Sub(h.Earlier.At), true
}

// SocketTuple returns the tuple of the packets that a TCP socket sends. It is
// the Original tuple of the flow the socket began, or the Reply tuple of the
// one it answers, translated addresses (NAT) or not: conntrack sees local
// packets before it translates them.
func SocketTuple(s *sockdiag.Socket) conntrack.Tuple {
	return conntrack.Tuple{
		Src: s.Local.Addr(), Dst: s.Remote.Addr(),
		SrcPort: s.Local.Port(), DstPort: s.Remote.Port(),
		Proto: conntrack.ProtoTCP,
	}
}

func connection(t conntrack.Tuple) string {
	return fmt.Sprintf("%v > %v", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

// seconds writes a duration as the sysctls do.
func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d/time.Second)) }

// timeoutName is the sysctl of the timeout of a TCP state: ESTABLISHED or one
// of those that follow it while data can still come.
func timeoutName(state conntrack.TCPState) string {
	return "net.netfilter.nf_conntrack_tcp_timeout_" + strings.ToLower(state.String())
}

// timeoutSetting is the same with its value, if it is known.
func timeoutSetting(s conntrack.Settings, state conntrack.TCPState) (Setting, bool) {
	name := timeoutName(state)
	if !s.Has(strings.TrimPrefix(name, "net.netfilter.")) {
		return Setting{}, false
	}
	return Setting{name, fmt.Sprint(int64(s.Timeouts.TCP(state) / time.Second))}, true
}
