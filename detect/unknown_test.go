package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// untold makes rows of those that do not tell some fields, as text does not.
func untold(rows []sockdiag.Socket, fields sockdiag.Fields) []sockdiag.Socket {
	rows = slices.Clone(rows)
	for i := range rows {
		s := &rows[i]
		s.Fields |= fields
		if fields&sockdiag.UnknownOwner != 0 {
			s.UID, s.Inode = 0, 0
		}
		if fields&sockdiag.UnknownTimer != 0 {
			s.Timer, s.Expires, s.Retransmits = 0, 0, 0
		}
	}
	return rows
}

const untoldAll = sockdiag.UnknownOwner | sockdiag.UnknownTimer

// That a row does not tell its timer says nothing of keep-alives.
func TestUntoldLostFlows(t *testing.T) {
	h := rows(t, same, []string{queried}, []string{query})
	h.Flows[0].Timeout = time.Minute
	if found := find(t, LostFlows{}, h); len(found) != 1 || !mentions(found[0].Cause, "no keep-alive is due") {
		t.Errorf("told: %v", found)
	}
	h.Sockets = untold(h.Sockets, sockdiag.UnknownTimer)
	if found := find(t, LostFlows{}, h); len(found) != 0 {
		t.Errorf("untold: %v", found)
	}
	h.Flows = h.Flows[:0]
	found := find(t, LostFlows{}, h)
	if len(found) != 1 || found[0].Evidence.Sockets[0] != h.Sockets[0] {
		t.Errorf("without an entry: %v, of %+v", found, h.Sockets)
	}
}

func TestUntoldIdleFlood(t *testing.T) {
	idle := idling(held(61, sockdiag.Established, "198.51.100.7"), nil)
	for fields, want := range map[sockdiag.Fields]bool{0: true, sockdiag.UnknownOwner: true, sockdiag.UnknownTimer: false} {
		f := find(t, IdleFlood{}, Host{Now: now, Sockets: append(untold(idle, fields), listener443())})
		if len(f) != 1 || f[0].Count != 61 || f[0].Confidence != Likely || mentions(f[0].Cause, "on 61 of them no keep-alive") != want ||
			mentions(text(f[0].Evidence.Missing), "keep-alives") == want {
			t.Errorf("%v: %+v", fields, f)
		}
	}
}

// A queue that may be full, and one that is, by the most that it can be.
func TestUntoldQueue(t *testing.T) {
	const backlog = sockdiag.UnknownBacklog
	for _, tt := range []struct {
		queue   uint32
		sysctls string
		flood   bool // a flood is found
		doubt   bool
		full    Severity
	}{
		{0, "", true, false, 0},
		{129, "", true, true, 0},
		{127, "net.core.somaxconn = 128", true, true, 0},
		{128, "net.core.somaxconn = 128", true, true, Warning},
		{129, "net.core.somaxconn = 128", false, false, Critical},
		{129, "net.core.somaxconn = 4294967297", true, true, 0},
	} {
		h := Host{Now: now}
		if tt.sysctls != "" {
			h = sysctlHost(t, tt.sysctls)
		}
		l := listener443()
		l.AcceptQueue, l.Backlog, l.Fields = tt.queue, 0, backlog
		h.Sockets = append(unmet(held(1, 0, addresses(65, "198.51.100.%d")...), 1), l)
		found := find(t, SynFlood{}, h)
		if len(found) == 1 != tt.flood || tt.flood && mentions(text(found[0].Evidence.Missing), "accept queue") != tt.doubt {
			t.Errorf("%+v: %v", tt, found)
		}
		full := find(t, AcceptQueue{}, h)
		if len(full) == 1 != (tt.full != 0) || tt.full != 0 && (full[0].Severity != tt.full || full[0].Limit != 128 ||
			!mentions(full[0].Cause, "a backlog of at most 128") || full[0].Evidence.Settings == nil) {
			t.Errorf("%+v: %v", tt, full)
		}
	}
}

func TestUntoldOutboundScan(t *testing.T) {
	var scan []sockdiag.Socket
	for i := range 41 {
		s := socket(t, fmt.Sprintf("SYN_SENT 10.1.32.70 40000 198.51.100.%d 445", i+1))
		s.Timer, s.Retransmits = sockdiag.TimerOn, 1
		scan = append(scan, s)
	}
	for fields, want := range map[sockdiag.Fields]Confidence{0: Likely, sockdiag.UnknownOwner: Likely, sockdiag.UnknownTimer: Possible} {
		if f := find(t, OutboundScan{}, Host{Now: now, Sockets: untold(scan, fields)}); len(f) != 1 || f[0].Confidence != want {
			t.Errorf("%v: %v", fields, f)
		}
	}
}

// Who has a socket decides what is said and advised.
func TestUntoldLeaks(t *testing.T) {
	retransmits := func(_ int, s *sockdiag.Socket) { s.Timer, s.Retransmits = sockdiag.TimerOn, 2 }
	for _, tt := range []struct {
		rows          []sockdiag.Socket
		cause, fix    string
		missing, host bool
	}{
		{pileOf(61, sockdiag.FinWait1, orphaned), "are FIN_WAIT1 and no process has them:", "tcp_orphan_retries=1", false, true},
		{pileOf(61, sockdiag.FinWait1, retransmits), "are FIN_WAIT1 and user 1000 has them open:", "tcp_retries2=8", false, false},
		{pileOf(61, sockdiag.FinWait1, fromText), "are FIN_WAIT1:", "tcp_orphan_retries=1", true, true},
	} {
		f := examine(t, Leaks{}, Host{Now: now, Sockets: tt.rows})
		if len(f) != 1 || !mentions(f[0].Cause, tt.cause) || !mentions(f[0].Fix[0], tt.fix) ||
			mentions(text(f[0].Evidence.Missing), "whether a process has them") != tt.missing ||
			mentions(text(f[0].Evidence.Missing), "tcp_max_orphans") != tt.host {
			t.Errorf("%s: %+v", tt.cause, f)
		}
	}
}

// What only looks at states and addresses finds the same in text.
func TestUntoldStates(t *testing.T) {
	listening := listener443()
	for _, tt := range []struct {
		d    Detector
		rows []sockdiag.Socket
	}{
		{PerSource{}, append(held(40, sockdiag.TimeWait, "198.51.100.7"), listening)},
		{Census{}, pileOf(501, sockdiag.CloseWait)},
		{Ghosts{}, []sockdiag.Socket{socket(t, "LISTEN 10.1.32.70 9102 0.0.0.0 0")}},
		{PortReuse{}, []sockdiag.Socket{socket(t, portListener)}},
	} {
		h := Host{Now: now, Sockets: tt.rows}
		switch tt.d.(type) {
		case Ghosts:
			h.Flows = append(h.Flows, flow(t, ghost))
		case PortReuse:
			h.Flows = append(h.Flows, flow(t, inState(begun, "CLOSE")))
		}
		told := find(t, tt.d, h)
		h.Sockets = untold(tt.rows, untoldAll|sockdiag.UnknownBacklog)
		text := find(t, tt.d, h)
		for _, found := range [][]Finding{told, text} {
			for i := range found {
				found[i].Evidence.Sockets = nil
			}
		}
		if len(told) != 1 || fmt.Sprint(told) != fmt.Sprint(text) {
			t.Errorf("%s: told %v, untold %v", tt.d.Name(), told, text)
		}
	}
}
