package detect

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// advise says which of the two it is: nobody accepts, or the queue is short.
func (q *queues) advise(f *Finding, l *sockdiag.Socket, w *waiting) {
	longer := []string{
		fmt.Sprintf("let more wait: %s, a larger argument of listen(2) than %d, and the application must listen anew",
			set(somaxconn, max(32768, 2*f.Limit)), f.Limit),
		"accept in a loop of its own, and until accept(2) would block",
	}
	stack := []string{
		fmt.Sprintf("see who should accept: `ss -tlnp 'sport = :%d'`, and in its stack, or /proc/PID/task/*/wchan, what it does instead", l.Local.Port()),
		"see whether it has no descriptors left (EMFILE): Descriptors tells",
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
