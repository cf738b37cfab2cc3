package detect

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// usage is how many are open.
func (s *shortage) usage() string {
	text := fmt.Sprintf("%d of %d file descriptors are open (%.0f%%)", s.Used, s.SoftLimit, 100*s.share)
	switch {
	case s.Used < s.SoftLimit:
		return text
	case s.system():
		return text + ", and opening another fails (ENFILE) but for root"
	}
	return text + ", and opening another fails (EMFILE): new connections are not accepted"
}

// pace is how fast they go.
func (s *shortage) pace() string {
	switch {
	case s.rate == 0 || s.left == 0:
		return ""
	case s.rate < 1:
		return fmt.Sprintf("; %.1f more a minute: none is left in %v", 60*s.rate, rough(s.left))
	}
	return fmt.Sprintf("; %.1f more a second: none is left in %v", s.rate, rough(s.left))
}

// rough rounds a time that is an estimate.
func rough(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(time.Second / 10)
	}
	return d.Round(time.Second)
}

// holds is what the sockets among them are.
func (s *shortage) holds() string {
	if s.held == 0 {
		return ""
	}
	text := fmt.Sprintf("; %d are sockets of this namespace", s.held)
	var words []string
	for _, state := range []sockdiag.State{sockdiag.Established, sockdiag.CloseWait, sockdiag.FinWait2, sockdiag.SynSent} {
		if n := s.states[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %v", n, state))
		}
	}
	if len(words) > 0 {
		text += ", " + strings.Join(words, ", ")
	}
	return text
}

// fix takes the cause first, and then the limit.
func (s *shortage) fix(sources []netip.Prefix) []string {
	var fix []string
	for _, source := range sources[:min(len(sources), 3)] {
		fix = append(fix, fmt.Sprintf("unless it is one of yours, ban %s or limit it, and end its %d connections: `ss -K dst %s`",
			bare(source), s.peers.count(source), bare(source)))
	}
	if s.states[sockdiag.CloseWait] > s.held/2 {
		fix = append(fix, "have the application close what its peers have closed (CLOSE_WAIT): Leaks")
	}
	return append(fix, s.raise())
}

// raise is how the limit is raised.
func (s *shortage) raise() string {
	switch {
	case s.system():
		return moreFiles(s.SoftLimit)
	case s.HardLimit > s.SoftLimit:
		return fmt.Sprintf("raise the soft limit to the hard one, at once: `prlimit --pid %d --nofile=%s:`",
			s.Process.PID, limitText(s.HardLimit))
	}
	return fmt.Sprintf("raise the limit, as root: `prlimit --pid %d --nofile=%d:%[2]d`, and LimitNOFILE=%[2]d in the unit for the next start",
		s.Process.PID, double(s.SoftLimit))
}

// moreFiles is how the limit of the system is raised.
func moreFiles(limit uint64) string {
	return "let the system have more: " + set(fileMax, double(limit))
}

func double(n uint64) uint64 { return min(n, math.MaxInt64/2) * 2 }

func limitText(n uint64) string {
	if n == math.MaxUint64 {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}
