package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// advise says which of the two it is: nobody accepts, or the queue is short.
func (q *queues) advise(f *Finding, l *sockdiag.Socket, w *waiting) {
	longer := []string{
		fmt.Sprintf("let more wait: a larger argument of listen(2) than %d, and `sysctl net.core.somaxconn` no less; "+
			"the application must listen anew", f.Limit),
		"accept in a loop of its own, and until accept(2) would block",
	}
	stack := []string{
		fmt.Sprintf("see what the application does instead of accept(2): `ss -tlnp 'sport = :%d'`, then "+
			"`cat /proc/PID/task/*/wchan` or its stack", l.Local.Port()),
		"see whether it has no descriptors left (EMFILE): Descriptors",
		"restart it if it hangs; a longer queue only makes the clients wait longer",
	}
	switch {
	case w.count == 0 || w.untold == w.count:
		f.Confidence = Possible
		f.Evidence.Missing = append(f.Evidence.Missing, "how long the connections have waited (Query.Info of the ESTABLISHED sockets)")
		f.Cause += "; the application does not accept, or the backlog is too small"
		f.Fix = append(stack[:1:1], longer...)
	case w.oldest >= q.stuck:
		f.Cause += fmt.Sprintf("; the first has waited for %s: the application does not accept, or far too slowly",
			w.oldest.Truncate(time.Second/10))
		f.Fix = stack
		if !q.host.Now.IsZero() {
			f.Since = q.host.Now.Add(-w.oldest)
		}
	default:
		f.Severity-- // it may be over in an instant
		f.Cause += fmt.Sprintf("; none has waited for longer than %s: the application accepts, and the backlog is too small "+
			"for how they come", w.oldest.Truncate(time.Millisecond))
		f.Fix = longer
	}
}
