package detect

import (
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// The evidence has all of a row but what few queries ask for.
func TestCarrierSocket(t *testing.T) {
	s := socket(t, query)
	s.Protocol, s.Timer, s.Expires, s.Retransmits = sockdiag.TCP, sockdiag.TimerOn, 3*time.Second, 2
	s.Interface, s.UID, s.Inode, s.Cookie, s.CgroupID = 7, 1000, 4711, 1<<40, 99
	s.RecvQueue, s.SendQueue, s.Shutdown = 5, 6, sockdiag.ShutdownReceive
	s.Fields = sockdiag.FieldShutdown | sockdiag.FieldCgroup | sockdiag.UnknownOwner | sockdiag.UnknownTimer
	c := carry(socketEnds(&s), &s)
	if got := c.socket(); got != s {
		t.Errorf("got %+v, want %+v", got, s)
	}
}

// A connected UDP socket is no TCP connection of the same ends.
func TestOtherProtocols(t *testing.T) {
	h := rows(t, same, []string{unrelated, ghost}, []string{"ESTABLISHED 10.1.32.70 9102 10.1.41.192 51522"})
	h.Sockets[0].Protocol = sockdiag.UDP
	if found := find(t, LostFlows{}, h); len(found) != 0 {
		t.Errorf("of UDP: %v", found)
	}
	if found := find(t, Ghosts{}, h); len(found) != 1 {
		t.Errorf("of UDP: %v", found)
	}
}

// A dump can tell an entry twice: the last is right.
func TestLostFlowsToldTwice(t *testing.T) {
	h := rows(t, same, []string{queried, queried}, []string{query})
	h.Flows[0].Timeout = time.Minute
	if found := find(t, LostFlows{}, h); len(found) != 0 {
		t.Errorf("renewed meanwhile: %v", found)
	}
}
