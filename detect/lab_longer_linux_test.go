package detect

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// halves are connections that one end has closed, and whose entry ends before
// them.
var halves = []struct {
	setting string
	state   sockdiag.State
	close   func(*stage, bothEnds)
}{
	{ctTCP + "close_wait", sockdiag.FinWait2, func(s *stage, p bothEnds) {
		noError(s.t, p.server.(*net.TCPConn).CloseWrite())
	}},
	{ctTCP + "last_ack", sockdiag.FinWait1, func(s *stage, p bothEnds) {
		s.mute()
		noError(s.t, p.server.Close())
	}},
	{ctTCP + "last_ack", sockdiag.LastAck, func(s *stage, p bothEnds) {
		noError(s.t, p.client.(*net.TCPConn).CloseWrite())
		s.awaits(sockdiag.CloseWait)
		s.mute()
		noError(s.t, p.server.Close())
	}},
}

// With the longer timeout the entry of such a connection stays.
func TestLabLonger(t *testing.T) {
	t.Parallel()
	lab.Tool(t, "sysctl")
	for _, tt := range halves {
		t.Run(tt.state.String(), func(t *testing.T) {
			t.Parallel()
			eachCrowd(t, func(t *testing.T, c *crowd, ipv6 bool) {
				half := func(c *crowd, prepare func(*stage)) *stage {
					s := newStage(t, c, ipv6)
					s.own()
					prepare(s)
					tt.close(s, s.enter(s.serve(9102), 1, 1, "")[0])
					s.awaits(tt.state)
					return s
				}
				fix := new(Host).lostFix(tt.state)[0]
				if tt.state == sockdiag.FinWait2 { // in the others retransmissions may renew the entry in time
					s := half(c, func(s *stage) { s.set(tt.setting, "1") })
					fix = s.until("forgotten", map[string]int{"LostFlows": 1}, "LostFlows", 0)[0].Fix[0]
				}
				s := half(newCrowd(t), func(s *stage) {
					s.set(tt.setting, "1")
					s.obey(fix)
				})
				stays := func(f conntrack.Flow) bool { return f.Has(conntrack.FieldTCP) && f.Timeout > time.Minute }
				s.waits(func() bool { return slices.ContainsFunc(s.look().Flows, stays) })
				if found, _ := s.found(); len(found) > 0 {
					t.Errorf("after %s: %v", fix, found)
				}
				Proved(t, fix)
			})
		})
	}
}

// awaits waits until a connection of the server is in a state.
func (s *stage) awaits(state sockdiag.State) {
	s.t.Helper()
	s.waits(func() bool {
		return slices.ContainsFunc(s.sockets(), func(row sockdiag.Socket) bool { return row.State == state })
	})
}

func (s *stage) waits(until func() bool) {
	s.t.Helper()
	for end := time.Now().Add(crowdPatience); !until(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain, with %v and %v", s.sockets(), s.look().Flows)
		}
	}
}
