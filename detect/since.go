package detect

import (
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// timeWaitLen is how long a socket is in TIME_WAIT (TCP_TIMEWAIT_LEN).
const timeWaitLen = time.Minute

// begun is since when the rows of a finding are as they are, by the one that
// tells the longest time; the zero Time if none does.
func (h *Host) begun(rows []sockdiag.Socket) time.Time {
	longest := time.Duration(0)
	for i := range rows {
		longest = max(longest, h.lasted(&rows[i]))
	}
	if h.Now.IsZero() || longest == 0 {
		return time.Time{}
	}
	return h.Now.Add(-longest)
}

// lasted is for how long, at least, a socket has been in its state, or idle in
// ESTABLISHED; 0 is not known.
func (h *Host) lasted(s *sockdiag.Socket) time.Duration {
	switch s.State {
	case sockdiag.TimeWait:
		if s.Timer == sockdiag.TimerTimeWait {
			return max(timeWaitLen-s.Expires, 0)
		}
	case sockdiag.FinWait2:
		if whole := h.Sysctls.FinTimeout; s.Timer == sockdiag.TimerTimeWait {
			return max(whole-s.Expires, 0)
		}
	case sockdiag.SynSent:
		// A SYN is sent again after a second or more (TCP_TIMEOUT_INIT, and
		// tcp_syn_linear_timeouts of Linux 6.5). What SYN_RECV has sent again
		// tells no time: it answers every SYN that comes again.
		return time.Duration(s.Retransmits) * time.Second
	}
	switch idle, ok := idleTime(s); s.State {
	case sockdiag.Established:
		if ok { // acknowledgements are those of keep-alives, too
			return min(s.Info.LastDataSent, s.Info.LastDataRecv)
		}
	case sockdiag.CloseWait, sockdiag.FinWait1, sockdiag.FinWait2, sockdiag.LastAck, sockdiag.Closing:
		return idle
	}
	return 0
}
