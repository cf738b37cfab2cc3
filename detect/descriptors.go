package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// Descriptors finds processes, and systems, that run out of file descriptors:
// Host.Files against their limits, and with Host.Earlier how fast
// they go and how long they last. At the limit accept(2), socket(2) and open(2)
// fail with EMFILE, or ENFILE if it is the system's.
//
// With Host.Holders and the rows of sockets it says what a process holds, and
// which remote sources hold most of it. It keeps something of the processes in
// trouble only: 16384 sources each at most.
type Descriptors struct {
	// Share is how much of the limit may be used, 0 to 1; 0 is 0.8. Above 0.95
	// it is Critical.
	Share float64
	// Left is how much time may be left at the present rate, for a process that
	// has used half of its limit; 0 is 10 minutes.
	Left time.Duration
	// PerSource is how many connections of one source are taken for normal;
	// 0 is 60.
	PerSource uint64
}

// Name returns "Descriptors".
func (Descriptors) Name() string { return "Descriptors" }

// Look begins with the processes: without one in trouble no row is looked at.
func (d Descriptors) Look(h *Host) Look {
	u := &usages{Descriptors: d, host: h, listening: make(map[uint16]bool)}
	u.PerSource = cmp.Or(d.PerSource, 60)
	for i := range h.Files {
		if s, ok := u.judge(&h.Files[i]); ok {
			u.short = append(u.short, s)
		}
	}
	look := Look{Findings: u.findings}
	if len(u.short) > 0 && len(h.Holders) > 0 {
		look.Socket = u.socket
	}
	return look
}

type usages struct {
	Descriptors
	host      *Host
	listening map[uint16]bool
	short     []*shortage
}

// shortage is a process in trouble.
type shortage struct {
	OpenFiles
	share  float64
	rate   float64       // descriptors a second; 0 is not known, or none
	left   time.Duration // at that rate; 0 is not known
	held   uint64        // descriptors that are sockets of the rows
	states SocketCounts  // of these
	peers  peers         // of connections that came in
	rows   []sockdiag.Socket
}

func (u *usages) judge(f *OpenFiles) (*shortage, bool) {
	if f.SoftLimit == 0 {
		return nil, false
	}
	s := &shortage{OpenFiles: *f, share: float64(f.Used) / float64(f.SoftLimit)}
	s.extrapolate(u.host)
	soon := s.rate > 0 && s.left <= cmp.Or(u.Left, 10*time.Minute)
	return s, s.share >= cmp.Or(u.Share, 0.8) || s.share >= 0.5 && soon
}

// extrapolate tells how fast descriptors go, from the earlier look at the same
// process.
func (s *shortage) extrapolate(h *Host) {
	spent := h.Now.Sub(h.Earlier.At)
	i := slices.IndexFunc(h.Earlier.Files, func(f OpenFiles) bool {
		return f.Process.PID == s.Process.PID && f.Process.Started == s.Process.Started
	})
	if i < 0 || h.Earlier.At.IsZero() || spent <= 0 || s.Used <= h.Earlier.Files[i].Used {
		return
	}
	s.rate = float64(s.Used-h.Earlier.Files[i].Used) / spent.Seconds()
	if s.SoftLimit > s.Used {
		s.left = time.Duration(min(float64(s.SoftLimit-s.Used)/s.rate*float64(time.Second), math.MaxInt64/2))
	}
}

func (u *usages) socket(row *sockdiag.Socket) {
	if isTCP(row) && row.State == sockdiag.Listen {
		u.listening[row.Local.Port()] = true
	}
	for _, h := range u.host.Holders[row.Inode] {
		for _, s := range u.short {
			if s.Process.PID == h.Process.PID {
				u.hold(s, row)
			}
		}
	}
}

// hold counts a descriptor of a process.
func (u *usages) hold(s *shortage, row *sockdiag.Socket) {
	s.held++
	if !isTCP(row) {
		return
	}
	s.states.add(row.State)
	if row.State == sockdiag.Listen || serviceOf(row, u.listening).remote.IsValid() {
		return
	}
	if s.peers.add(row.Remote.Addr()) > u.PerSource && len(s.rows) < evidenceOf {
		s.rows = append(s.rows, *row)
	}
}

func (u *usages) findings() []Finding {
	var found []Finding
	for _, s := range u.short {
		found = append(found, u.finding(s))
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	if f, ok := u.host.loggedFiles(); ok && len(found) == 0 {
		found = append(found, f)
	}
	return found
}

func (u *usages) finding(s *shortage) Finding {
	f := Finding{
		Detector: "Descriptors", Severity: Warning, Confidence: Certain,
		Subject: s.subject(), Count: s.Used, Limit: s.SoftLimit,
		Evidence: Evidence{Sockets: s.rows},
	}
	switch {
	case s.share >= 0.95:
		f.Severity = Critical
	case s.share < cmp.Or(u.Share, 0.8):
		f.Confidence = Likely // it may stop growing
	}
	if u.host.Holders != nil {
		f.Sources = s.peers.above(u.PerSource)
	}
	f.Cause = s.usage() + s.pace() + s.holds()
	if len(f.Sources) > 0 {
		f.Cause += "; connections by source: " + s.peers.text(f.Sources)
	}
	f.Fix = s.fix(f.Sources)
	s.missing(&f, u.host)
	return f
}

// system reports whether it is all processes together.
func (f *OpenFiles) system() bool { return f.Process == sockdiag.Process{} }

func (s *shortage) subject() string {
	if s.system() {
		return "all processes"
	}
	return processText(s.Process)
}

// missing names what would tell more.
func (s *shortage) missing(f *Finding, h *Host) {
	if s.rate == 0 && (h.Earlier.At.IsZero() || h.Earlier.Files == nil) {
		f.Evidence.Missing = append(f.Evidence.Missing, "an earlier look (Host.Earlier), for the rate")
	}
	if h.Holders == nil && !s.system() {
		f.Evidence.Missing = append(f.Evidence.Missing, fmt.Sprintf("what they are: ls -l /proc/%d/fd (Host.Holders)", s.Process.PID))
	}
	name := "RLIMIT_NOFILE"
	if s.system() {
		name = "fs.file-max"
	}
	f.Evidence.Settings = []Setting{{name, fmt.Sprint(s.SoftLimit)}}
}
