package detect

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// slowFix is a setting that takes its time. It is seen to help beside the same
// scene without it.
type slowFix struct {
	name    string
	setting string // as printed, with its value
	// scene is made twice, and played in both.
	scene func(t *testing.T) *slowScene
	// want are the detectors that print the setting, once for each finding.
	want []string
	// later says that it is for what comes after it: what was there already
	// stays, for as long as without it.
	later bool
	// gone is after how long nothing is found any more, which without it is.
	gone time.Duration
}

// slowScene is a host, and what detectors find of it.
type slowScene struct {
	*testing.T
	host  *lab.Host
	play  func()
	found func() []Finding
}

// Fixes that take a minute or more, at the value that is printed.
func TestLabPatient(t *testing.T) {
	if !lab.Emulated() {
		t.Skip("waits for hours, over which the clock of internal/ci/kernels leaps")
	}
	for _, fix := range slowFixes {
		t.Run(fix.name, func(t *testing.T) {
			t.Parallel()
			fix.test(t)
		})
	}
	t.Run("syncookies", func(t *testing.T) {
		t.Parallel()
		letIn(t, syncookies+"=1", somaxconn, false, "Census", "PerSource", "PerSource", "SynFlood")
	})
	t.Run("backlog", func(t *testing.T) {
		t.Parallel()
		letIn(t, synBacklog+"=65536", synBacklog, true, "SynFlood")
	})
	t.Run("answering", func(t *testing.T) {
		t.Parallel()
		answering(t)
	})
	t.Run("time wait", func(t *testing.T) {
		t.Parallel()
		timeWaits(t)
	})
}

func (x *slowFix) test(t *testing.T) {
	without, with := x.scene(t), x.scene(t)
	without.play()
	fixes := without.until(x.setting, x.want)
	if x.later {
		without.obey(fixes)
		with.obey(fixes)
	}
	with.play()
	with.awaits(fixes)
	if !x.later {
		with.obey(fixes)
	}
	time.Sleep(x.gone)
	if left := with.left(fixes); len(left) > 0 {
		t.Errorf("%v after %s: %v", x.gone, x.setting, left)
	}
	if left := without.left(fixes); len(left) != len(fixes) {
		t.Errorf("without %s there is only %v after %v", x.setting, left, x.gone)
	}
	provedRemedies(t, fixes)
}

// about is what a finding is about, and its detector.
type about struct{ detector, subject string }

// until waits until detectors print a setting, and returns what they print.
func (s *slowScene) until(setting string, detectors []string) map[about]string {
	s.Helper()
	var found []Finding
	for range 30 {
		fixes := make(map[about]string)
		found = s.found()
		for _, f := range found {
			for _, fix := range f.Fix {
				if strings.Contains(fix, "`sysctl -w "+setting+"`") {
					fixes[about{f.Detector, f.Subject}] = fix
				}
			}
		}
		var names []string
		for a := range fixes {
			names = append(names, a.detector)
		}
		if slices.Sort(names); slices.Equal(names, detectors) {
			return fixes
		}
		time.Sleep(4 * time.Second)
	}
	s.Fatalf("want %s by %v, found %v", setting, detectors, found)
	return nil
}

// awaits waits until the same is found, which no longer may print the setting.
func (s *slowScene) awaits(fixes map[about]string) {
	s.Helper()
	for range 30 {
		if len(s.left(fixes)) == len(fixes) {
			return
		}
		time.Sleep(4 * time.Second)
	}
	s.Fatalf("want %v, found %v", fixes, s.found())
}

// left are those that are still found.
func (s *slowScene) left(fixes map[about]string) map[about]string {
	left := make(map[about]string)
	for _, f := range s.found() {
		if fix, ok := fixes[about{f.Detector, f.Subject}]; ok {
			left[about{f.Detector, f.Subject}] = fix
		}
	}
	return left
}

func (s *slowScene) obey(fixes map[about]string) {
	s.Helper()
	for fix := range maps.Values(fixes) {
		for _, command := range commandsOf(fix) {
			if out, err := s.host.Exec(s.Context(), "sh", "-c", command); err != nil {
				s.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
}

func provedRemedies(t *testing.T, fixes map[about]string) {
	for a, fix := range fixes {
		t.Logf("%s of %s: %s", a.detector, a.subject, fix)
		provedOf(t, a.detector, fix)
	}
}

// slowFixes are those after which it takes a while until nothing is found.
var slowFixes = []slowFix{
	// Without it the first probe comes after two hours. Nine go unanswered.
	{"dead peers", keepaliveTime + "=1200", inStage(deadPeers, IdleFlood{Limit: 5}, PerSource{Limit: 5}, Leaks{FinWait2: 5}),
		[]string{"IdleFlood", "IdleFlood", "Leaks", "PerSource", "PerSource"}, true, timerLate(1200*time.Second) + 9*timerLate(75*time.Second)},
	{"unanswered, and open", "net.ipv4.tcp_retries2=8", inStage(unansweredOpen, Leaks{FinWait1: 5}), // else 15 minutes
		[]string{"Leaks"}, false, 210 * time.Second},
	{"ports", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=30", behindRouter, // else two minutes
		[]string{"PortSpace", "PortSpace"}, true, timerLate(30 * time.Second)},
	{"half closed", finTimeout + "=30", inStage(halfClosed, Leaks{Orphans: 5}, Census{Limit: 5}, PerSource{Limit: 5}), // else a minute
		[]string{"Census", "Leaks", "PerSource", "PerSource"}, true, timerLate(30 * time.Second)},
	{"handshakes", synAckRetries + "=3", inStage(handshakes, SynFlood{Limit: 20}, Census{Limit: 20}), // else 63 s
		[]string{"Census", "SynFlood"}, false, timerLate(15 * time.Second)},
	{"attempts", synRetries + "=3", inStage(attempted, OutboundScan{}), // else two minutes
		[]string{"OutboundScan", "OutboundScan"}, false, 20 * time.Second},
	{"unanswered", orphanRetries + "=1", inStage(unanswered3, Leaks{FinWait1: 5, LastAck: 5, Closing: 5}, // else 100 s
		Census{Limit: 5, Share: 0.1}, PerSource{Limit: 5}),
		[]string{"Census", "Census", "Leaks", "Leaks", "Leaks", "PerSource", "PerSource", "PerSource", "PerSource"}, false, 10 * time.Second},
	{"full, and gone", orphanRetries + "=1", inStage(func(s *stage) { s.closeServers(s.full(9102)); s.mute() }, Leaks{FinWait1: 5}), // else two minutes
		[]string{"Leaks"}, false, 20 * time.Second},
	{"full, gone, and open", "net.ipv4.tcp_retries2=8", inStage(func(s *stage) { s.shut(s.full(9102)); s.mute() }, Leaks{FinWait1: 5}), // else 15 minutes
		[]string{"Leaks"}, false, 210 * time.Second},
}

// timerLate is when a timer of the kernel has surely fired: an eighth late at most
// (kernel/time/timer.c).
func timerLate(d time.Duration) time.Duration { return d + d/8 }
