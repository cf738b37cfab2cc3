package sockdiag

import (
	"net/netip"
	"slices"
	"testing"
)

// sctpRow is a row of SCTP as sctp_diag fills it, before it is translated.
func sctpRow(state State, fields Fields, cookie uint64, remote string) Socket {
	return Socket{
		Protocol: TCP, // encodeSocket writes numbers as they are
		Family:   IPv4, State: state, Cookie: cookie, Fields: fields,
		Local: netip.MustParseAddrPort("192.0.2.1:5000"), Remote: netip.MustParseAddrPort(remote),
		RecvQueue: 7, SendQueue: 9,
	}
}

func decodeSCTP(t *testing.T, raw Socket) Socket {
	t.Helper()
	s := Socket{Protocol: SCTP}
	if err := s.decode(encodeSocket(raw)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAssociation reads what sctp_diag numbers in its own way.
func TestAssociation(t *testing.T) {
	for state, want := range []State{Close, SynSent, SynSent, Established, FinWait1, FinWait2, CloseWait, LastAck, 0} {
		raw := sctpRow(State(state), FieldAssociation, 1, "192.0.2.2:9")
		raw.Timer = 4 // SCTP_EVENT_TIMEOUT_T3_RTX
		s := decodeSCTP(t, raw)
		if s.State != want || s.Timer != TimerOn || s.RecvQueue != 7 || s.SendQueue != 9 || s.AcceptQueue != 0 {
			t.Errorf("state %d: %+v, want %v", state, s, want)
		}
	}
	// The queues of an endpoint count connections.
	s := decodeSCTP(t, sctpRow(Established, 0, 1, "0.0.0.0:0"))
	if s.State != Established || s.RecvQueue != 0 || s.SendQueue != 0 || s.AcceptQueue != 0 {
		t.Errorf("endpoint: %+v", s)
	}
	listener := sctpRow(Listen, 0, 1, "0.0.0.0:0")
	listener.RecvQueue, listener.SendQueue, listener.AcceptQueue, listener.Backlog = 0, 0, 7, 9
	if s = decodeSCTP(t, listener); s.AcceptQueue != 7 || s.Backlog != 9 || s.RecvQueue != 0 {
		t.Errorf("listener: %+v", s)
	}
}

// TestSnapshotAssociations: sctp_diag tells an endpoint once among the
// endpoints and once before its associations, all with one cookie.
func TestSnapshotAssociations(t *testing.T) {
	endpoint := sctpRow(Close, 0, 5, "0.0.0.0:0")
	one := sctpRow(3, FieldAssociation, 5, "192.0.2.2:9")
	two := sctpRow(6, FieldAssociation, 5, "192.0.2.2:10")
	later := one
	later.SendQueue = 1
	c := kernel(t, func(_ Family, seq uint32) [][]byte {
		rows := row(seq, endpoint)
		for _, s := range []Socket{endpoint, one, two, later} {
			rows = append(rows, row(seq, s)...)
		}
		return [][]byte{rows, done(seq)}
	})
	snap, err := c.Snapshot(t.Context(), Query{Protocol: SCTP, Family: IPv4})
	if err != nil {
		t.Fatal(err)
	}
	want := []Socket{decodeSCTP(t, endpoint), decodeSCTP(t, later), decodeSCTP(t, two)}
	if !slices.Equal(snap.Sockets, want) || snap.Duplicates != 2 {
		t.Errorf("%d duplicates, %+v\nwant 2, %+v", snap.Duplicates, snap.Sockets, want)
	}
	if snap, err = c.Snapshot(t.Context(), Query{Protocol: SCTP, Family: IPv4, States: States(CloseWait)}); err != nil ||
		len(snap.Sockets) != 1 || snap.Sockets[0].Remote.Port() != 10 {
		t.Errorf("CLOSE_WAIT: %v, %+v", err, snap)
	}
}

// TestQueuesUnderflow: a dying UDP socket shows its send queue as -1, and what
// is subtracted without a lock can be less than nothing.
func TestQueuesUnderflow(t *testing.T) {
	raw := captured["established"]
	raw.RecvQueue, raw.SendQueue = 1<<32-1, 1<<31
	s, err := decodeSocket(encodeSocket(raw))
	if err != nil || s.RecvQueue != 0 || s.SendQueue != 0 {
		t.Errorf("%v, %+v; want empty queues", err, s)
	}
	raw = captured["listen-queue"]
	raw.Backlog = 1<<32 - 1
	if s, err = decodeSocket(encodeSocket(raw)); err != nil || s.Backlog != 1<<32-1 {
		t.Errorf("%v, %+v; want a backlog without limit", err, s)
	}
}
