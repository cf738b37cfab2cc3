package detect

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// This file has what the kernel's log tells of what no row shows any more. The
// log is of all network namespaces of the machine.

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

// told is what one line of the log tells.
func (h *Host) told(detector string, kind *regexp.Regexp, cause string) (Finding, bool) {
	lines := h.logged(kind)
	return Finding{
		Detector: detector, Severity: Warning, Confidence: Likely, Subject: "kernel log", Cause: cause,
		Evidence: Evidence{Log: lines},
	}, len(lines) > 0
}

func (h *Host) loggedFlood() (Finding, bool) {
	f, ok := h.told("SynFlood", synFlooding, "a listener had more half-open connections (SYN_RECV) than its backlog, and the kernel "+
		"dropped SYNs or answered with cookies: a flood, or a backlog that is too short")
	h.remedy(&f, "answer without memory", syncookies)
	f.Fix = append(f.Fix, longerBacklog)
	f.Evidence.Missing = []string{"in which network namespace it was, and of which sources: rows of that time"}
	return f, ok
}

func (h *Host) loggedOrphans() (Finding, bool) {
	f, ok := h.told("Leaks", tooManyOrphans, "more connections were closed here and not ended by their peers than "+maxOrphans+
		" or memory allow, and the kernel reset some")
	h.remedy(&f, "give up sooner", orphanRetries)
	h.remedy(&f, "end them sooner", finTimeout)
	return f, ok
}

func (h *Host) loggedFiles() (Finding, bool) {
	f, ok := h.told("Descriptors", noMoreFiles, "all processes together had as many files open as "+fileMax+
		" allows, and opening another failed (ENFILE) but for root")
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
