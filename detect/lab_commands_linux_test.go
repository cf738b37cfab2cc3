package detect

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The commands of findings that no scene has are such as the tools take.
func TestLabCommands(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"nft", "ss", "conntrack", "prlimit", "sysctl"} {
		lab.Tool(t, tool)
	}
	s := newStage(t, newCrowd(t), false)
	for _, words := range []string{
		"add table inet filter", "add chain inet filter output { type filter hook output priority 0; }",
		"add chain inet filter forward { type filter hook forward priority 0; }",
		"add chain inet filter input { type filter hook input priority 0; }",
		"add set inet filter banned4 { type ipv4_addr; flags interval; }", "add set inet filter banned6 { type ipv6_addr; flags interval; }",
	} {
		s.command("nft '" + words + "'")
	}
	for _, f := range commandFindings(t) {
		if len(f.Fix) == 0 {
			t.Errorf("no fix: %v", f)
		}
		for _, fix := range f.Fix {
			if strings.Contains(fix, "initial network namespace") {
				continue // TestLabMachine
			}
			s.obey(fix)
			if strings.HasPrefix(fix, "see ") {
				Proved(t, fix)
			}
		}
	}
}

// commandFindings are such as no scene makes, or tell where to look.
func commandFindings(t *testing.T) (found []Finding) {
	for i := range meanings {
		found = append(found, meanings[i].finding("", "", 0, 0))
	}
	for _, c := range counters {
		found = append(found, Finding{Fix: c.fix(conntrack.Usage{Max: 10, Buckets: 10})})
	}
	source := prefixes("192.0.2.7/32", "2001:db8:7::/64")
	found = append(found, exhausted(t, source), leftOpen(sockdiag.FinWait2), leftOpen(sockdiag.LastAck), leftOpen(sockdiag.Closing),
		Finding{Fix: stateFix[sockdiag.CloseWait]})
	for _, p := range source {
		found = append(found, forwardedScan(p.Addr()), Finding{Fix: []string{banFix(p), "`" + deleteFrom(p) + "`"}})
	}
	return found
}

// exhausted is this process as if it were at its limit.
func exhausted(t *testing.T, sources []netip.Prefix) Finding {
	d, err := sockdiag.Proc("").Descriptors(os.Getpid())
	noError(t, err)
	d.SoftLimit = 1 // the true one is the hard one already, and so stays
	s := shortage{OpenFiles: OpenFiles{Process: sockdiag.Process{PID: os.Getpid()}, Descriptors: d}}
	return Finding{Fix: s.fix(sources)}
}

// leftOpen is many sockets in a state that nobody has any more.
func leftOpen(state sockdiag.State) Finding {
	h := Host{Now: now}
	for i := range 3 {
		h.Sockets = append(h.Sockets, sockdiag.Socket{
			State: state, Retransmits: 3, Timer: sockdiag.TimerOn,
			Local: netip.MustParseAddrPort("192.0.2.2:443"), Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(5000+i)),
		})
	}
	return Find(h, Leaks{Orphans: 1, LastAck: 1, Closing: 1})[0]
}

// forwardedScan is one by a host behind a router.
func forwardedScan(from netip.Addr) Finding {
	h := Host{Now: now}
	for i := range 41 {
		to := from.As16()
		to[15] = byte(100 + i)
		f := conntrack.Flow{
			Original: conntrack.Tuple{Src: from, Dst: netip.AddrFrom16(to).Unmap(), SrcPort: 4000, DstPort: 23, Proto: conntrack.ProtoTCP},
			Fields:   conntrack.FieldTCP | conntrack.FieldTimeout | conntrack.FieldStatus, TCP: conntrack.TCPInfo{State: conntrack.TCPSynSent}, Timeout: time.Minute,
		}
		f.Reply = f.Original.Invert()
		h.Flows = append(h.Flows, f)
	}
	return Find(h, OutboundScan{})[0]
}

// mend runs the commands of the findings, and what the service's people do, and
// waits until nothing is found.
func (s *stage) mend(found []Finding, mended func(*stage)) {
	s.t.Helper()
	for _, tool := range []string{"nft", "ss", "conntrack", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			s.t.Logf("found, but not mended: %v", err)
			return
		}
	}
	s.command("nft add table inet filter")
	for _, words := range []string{
		"chain inet filter input { type filter hook input priority 0; }", "chain inet filter output { type filter hook output priority 0; }",
		"set inet filter banned4 { type ipv4_addr; flags interval; }", "set inet filter banned6 { type ipv6_addr; flags interval; }",
		"rule inet filter input ip saddr @banned4 drop", "rule inet filter input ip6 saddr @banned6 drop",
	} {
		s.command("nft 'add " + words + "'")
	}
	for _, f := range found {
		for _, fix := range f.Fix {
			s.obey(fix)
		}
	}
	if mended != nil {
		mended(s)
	}
	s.until("mended", map[string]int{}, "", 0)
	for _, f := range found {
		for _, fix := range f.Fix {
			Proved(s.t, fix)
		}
	}
}

// obey runs what is in backquotes: commands, but for parts of rules.
func (s *stage) obey(fix string) {
	s.t.Helper()
	for _, words := range commandsOf(fix) {
		switch tool, rest, _ := strings.Cut(words, " "); {
		case tool == "conntrack" && strings.HasPrefix(rest, "-D"):
			_ = s.tryCommand(words) // fails where nothing was to delete
		case tool != "traceroute" && fix != moreAddresses:
			s.command(words)
		}
	}
}

// commandsOf are what is in backquotes.
func commandsOf(fix string) (commands []string) {
	for i, words := range strings.Split(fix, "`") {
		if i%2 == 1 {
			commands = append(commands, words)
		}
	}
	return commands
}

func (s *stage) command(words string) {
	s.t.Helper()
	if err := s.tryCommand(words); err != nil {
		s.t.Error(err)
	}
}

func (s *stage) tryCommand(words string) error {
	out, err := s.server.Exec(s.t.Context(), "sh", "-c", words)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", words, err, out)
	}
	return nil
}
