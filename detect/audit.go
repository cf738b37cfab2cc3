package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Audit compares the settings of a host with what the incidents taught, and
// with each other. A value that hurts nobody yet is Info, the kernel's defaults
// among them; a combination that breaks connections is a Warning.
//
// It reads Host.Settings, Sysctls, Old, Files and Kernel, and says nothing of
// what is not known. From sockets it learns what the settings have to carry:
// how many connections, and for how long one was idle. It keeps two of them.
//
// The zero Audit asks for the values of the incidents.
type Audit struct {
	// LongestRequest is for how long a server works on a request while the
	// client may have given up; 0 is not known. The incidents' was 15 minutes.
	LongestRequest time.Duration
}

// Name returns "Audit".
func (Audit) Name() string { return "Audit" }

// Look begins a pass over sockets.
func (a Audit) Look(h *Host) Look {
	t := &auditor{Audit: a, Host: h}
	return Look{Socket: t.socket, Findings: t.findings}
}

// auditor is a pass: what the settings have to carry.
type auditor struct {
	Audit
	*Host
	connections, timeWait, clamped uint64
	idlest, listener               sockdiag.Socket
	idle                           time.Duration // of idlest
}

func (t *auditor) socket(s *sockdiag.Socket) {
	switch {
	case s.State == sockdiag.TimeWait:
		t.timeWait++
	case s.State == sockdiag.Listen:
		t.listens(s)
	default:
		t.connections++
		t.idles(s)
	}
}

// listens counts the listeners whose backlog somaxconn may have cut.
func (t *auditor) listens(s *sockdiag.Socket) {
	if s.Has(sockdiag.UnknownBacklog) || uint64(s.Backlog) != t.Sysctls.Somaxconn {
		return
	}
	if t.clamped++; t.clamped == 1 {
		t.listener = *s
	}
}

// idles remembers the connection that was idle for longest. Those of the host
// to itself do not count: most firewalls let everything pass on lo.
func (t *auditor) idles(s *sockdiag.Socket) {
	own := s.Remote.Addr().IsLoopback() || s.Remote.Addr() == s.Local.Addr()
	if s.State != sockdiag.Established || own {
		return
	}
	if idle, ok := idleTime(s); ok && idle > t.idle {
		t.idle, t.idlest = idle, *s
	}
}

func (t *auditor) findings() []Finding {
	var found []Finding
	for _, combine := range []func(*auditor) (Finding, bool){
		(*auditor).recycle, (*auditor).established, (*auditor).closeWait, (*auditor).buckets, (*auditor).reuse,
		(*auditor).timeWaits, (*auditor).memory, (*auditor).backlogs, (*auditor).files, (*auditor).limits,
	} {
		if f, ok := combine(t); ok {
			found = append(found, f)
		}
	}
	for _, a := range t.Review(t.Host) {
		if a.Severity != 0 {
			found = append(found, a.finding())
		}
	}
	for _, s := range t.Old {
		if f, ok := t.old(s); ok {
			found = append(found, f)
		}
	}
	return found
}

// advise makes a finding on settings.
func advise(severity Severity, confidence Confidence, subject, cause string, fix []string, settings ...Setting) Finding {
	return Finding{
		Detector: "Audit", Severity: severity, Confidence: confidence,
		Subject: subject, Cause: cause, Fix: fix, Evidence: Evidence{Settings: settings},
	}
}

// set is the command that sets a sysctl, until the next boot.
func set(name string, value any) string { return fmt.Sprintf("`sysctl -w %s=%v`", name, value) }

// atLeast reports whether the host has the given kernel or a later one, and
// whether that is known. Distributions carry later changes back: where the
// presence of a setting tells more, that counts.
func (h *Host) atLeast(major, minor int) (later, known bool) {
	var has [2]int
	if n, _ := fmt.Sscanf(h.Kernel, "%d.%d", &has[0], &has[1]); n != 2 {
		return false, false
	}
	return has[0] > major || has[0] == major && has[1] >= minor, true
}
