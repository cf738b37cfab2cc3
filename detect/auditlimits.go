package detect

import "fmt"

// backlogs compares somaxconn with what listeners got.
func (t *auditor) backlogs() (Finding, bool) {
	have := t.Sysctls.Somaxconn
	if !t.Sysctls.Has(somaxconn) || have >= 4096 && t.clamped == 0 || have >= 32768 {
		return Finding{}, false
	}
	cause := fmt.Sprintf("%s = %d cuts every longer backlog", somaxconn, have)
	f := advise(Info, Likely, somaxconn, cause,
		[]string{set(somaxconn, 32768) + ", and restart the listening program: listen(2) reads it"}, Setting{somaxconn, fmt.Sprint(have)})
	if t.clamped > 0 {
		f.Cause += fmt.Sprintf(": %d listeners have exactly that, such as %v, and may have asked for more", t.clamped, t.listener.Local)
		f.Evidence.Sockets = append(f.Evidence.Sockets, t.listener)
	}
	return f, true
}

// files compares what one process may open with what all may.
func (t *auditor) files() (Finding, bool) {
	if !t.Sysctls.Has(fileMax) {
		return Finding{}, false
	}
	for _, p := range t.Files {
		if p.Process.PID == 0 || p.SoftLimit < t.Sysctls.FileMax {
			continue
		}
		return advise(Warning, Likely, fileMax, fmt.Sprintf(
			"%s (%d) may open %d files, and all processes together %d: it can leave none for the others",
			p.Process.Command, p.Process.PID, p.SoftLimit, t.Sysctls.FileMax),
			[]string{set(fileMax, 2*min(p.SoftLimit, 1<<40))}, Setting{fileMax, fmt.Sprint(t.Sysctls.FileMax)}), true
	}
	return Finding{}, false
}

// smallLimit is what a process may open where nobody has said more
// (INR_OPEN_CUR): each connection takes one.
const smallLimit = 1024

// limits are the processes that may open no more than by default.
func (t *auditor) limits() (Finding, bool) {
	small := uint64(0)
	var first OpenFiles
	for _, p := range t.Files {
		if p.Process.PID == 0 || p.SoftLimit > smallLimit {
			continue
		}
		if small++; small == 1 {
			first = p
		}
	}
	if small == 0 {
		return Finding{}, false
	}
	hard := first.HardLimit
	if hard <= smallLimit { // which only root raises
		hard = 65536
	}
	f := advise(Info, Likely, "RLIMIT_NOFILE", fmt.Sprintf(
		"%d processes with sockets may open %d files or fewer, such as %s (%d): each connection takes one",
		small, smallLimit, first.Process.Command, first.Process.PID),
		[]string{"LimitNOFILE=65536 below [Service] in the unit (systemctl edit), and restart it",
			fmt.Sprintf("now, for one process: `prlimit --nofile=%s:%s --pid %d`", limitText(min(65536, hard)), limitText(hard), first.Process.PID)})
	f.Count = small
	if t.Sysctls.Has(nrOpen) {
		f.Evidence.Settings = []Setting{{nrOpen, fmt.Sprint(t.Sysctls.FilesPerProcess)}}
	}
	return f, true
}
