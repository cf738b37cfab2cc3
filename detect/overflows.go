package detect

import (
	"fmt"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// overflows is what the kernel's counter tells of accept queues that were full,
// when none is any more: in time since the earlier reading, else since the
// network namespace was made.
func (h *Host) overflows() (Finding, bool) {
	n, when := h.Counters.ListenOverflows, "since the network namespace was made"
	f := Finding{
		Detector: "AcceptQueue", Severity: Info, Confidence: Possible, Subject: "accept queues",
		Fix: []string{"see which: `ss -tlnm` shows as d of skmem what each listener has dropped"},
	}
	if elapsed, ok := h.since(); ok && h.Earlier.Counters != (sockdiag.Counters{}) {
		n -= min(n, h.Earlier.Counters.ListenOverflows)
		f.Severity, f.Confidence, f.Since, when = Warning, Certain, h.Earlier.At, "in the last "+seconds(elapsed)
	} else {
		f.Evidence.Missing = []string{"an earlier reading of the counters: whether it still happens"}
	}
	f.Count = n
	f.Cause = fmt.Sprintf("%d handshakes found the accept queue of their listener full %s, and were dropped; none is full now", n, when)
	return f, n > 0
}
