package detect

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// This file has what the kernel's log tells of what no row shows any more. The
// log is of all network namespaces of the machine: where the counters of this
// one tell that it was another, nothing is found.

// Lines of the kernel's log.
var (
	synFlooding    = regexp.MustCompile(`TCP: .*[Pp]ossible SYN flooding on port (\S+?)\. `) // tcp_syn_flood_action
	tooManyOrphans = regexp.MustCompile(`TCP: too many orphaned sockets`)                    // tcp_check_oom
	noMoreFiles    = regexp.MustCompile(`VFS: file-max limit ([0-9]+) reached`)              // alloc_empty_file
)

// logged are the last lines of the kernel's log of a kind, three at most.
func (h *Host) logged(kind *regexp.Regexp) []string {
	lines := slices.DeleteFunc(slices.Clone(h.Log), func(line string) bool { return !kind.MatchString(line) })
	return lines[max(len(lines)-3, 0):]
}

// told is what lines of the log tell. Counts are those of this namespace, by
// their names and values.
func (h *Host) told(detector string, kind *regexp.Regexp, cause string, counts map[string]uint64) (Finding, bool) {
	lines := h.logged(kind)
	here := len(counts) == 0
	for name, n := range counts {
		here = here || n > 0 || !h.Counters.Has(name)
	}
	return Finding{
		Detector: detector, Severity: Warning, Confidence: Likely, Subject: "kernel log", Cause: cause,
		Evidence: Evidence{Log: lines},
	}, here && len(lines) > 0
}

func (h *Host) loggedFlood() (Finding, bool) {
	f, ok := h.told("SynFlood", synFlooding, "a listener had more half-open connections (SYN_RECV) than its backlog, and the kernel "+
		"dropped SYNs or answered with cookies: a flood, or a backlog that is too short",
		map[string]uint64{"TcpExt.TCPReqQFullDrop": h.Counters.ReqQFullDrop, "TcpExt.TCPReqQFullDoCookies": h.Counters.ReqQFullDoCookies})
	h.remedy(&f, "let clients in meanwhile", syncookies)
	f.Fix = append(f.Fix, longerBacklog)
	f.Evidence.Missing = []string{"of which sources: rows of that time"}
	return f, ok
}

func (h *Host) loggedOrphans() (Finding, bool) {
	f, ok := h.told("Leaks", tooManyOrphans, "more connections were closed here and not ended by their peers than "+maxOrphans+
		" or memory allow, and the kernel reset some", map[string]uint64{"TcpExt.TCPAbortOnMemory": h.Counters.AbortOnMemory})
	h.remedy(&f, "give up sooner on peers that answer nothing", orphanRetries)
	h.remedy(&f, "end sooner what is closed from now on", finTimeout)
	return f, ok
}

func (h *Host) loggedFiles() (Finding, bool) {
	f, ok := h.told("Descriptors", noMoreFiles, "all processes together had as many files open as "+fileMax+
		" allows, and opening another failed (ENFILE) but for root", nil)
	if ok {
		limit := noMoreFiles.FindStringSubmatch(f.Evidence.Log[len(f.Evidence.Log)-1])[1]
		n, _ := strconv.ParseUint(limit, 10, 63) // of digits, from a signed number
		f.Fix = []string{moreFiles(n)}
		f.Evidence.Settings = []Setting{{fileMax, fmt.Sprint(n)}}
	}
	return f, ok
}

// longerBacklog is for a listener that has too many half-open connections.
var longerBacklog = "listen anew with a larger backlog, which this bounds: " + set(somaxconn, 32768)
