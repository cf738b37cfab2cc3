package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// idling makes of connections idle ones, without keep-alives.
func idling(rows []sockdiag.Socket, change func(*sockdiag.Socket)) []sockdiag.Socket {
	for i := range rows {
		s := &rows[i]
		s.Fields |= sockdiag.FieldInfo
		s.Info = sockdiag.TCPInfo{
			Fields: sockdiag.InfoBase | sockdiag.InfoBytes, BytesReceived: 1,
			LastDataSent: time.Hour, LastDataRecv: time.Hour, LastAckRecv: time.Second,
		}
		if change != nil {
			change(s)
		}
	}
	return rows
}

func TestIdleFlood(t *testing.T) {
	for _, tt := range []struct {
		name   string
		d      IdleFlood
		n      int
		change func(*sockdiag.Socket)
		want   Confidence // Unknown: nothing is found
	}{
		{"idle", IdleFlood{}, 61, nil, Likely},
		{"one less", IdleFlood{}, 60, nil, Unknown},
		{"keep-alives", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.Timer = sockdiag.TimerKeepalive }, Likely},
		{"unread bytes", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.RecvQueue = 2 }, Likely},
		{"much unread", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.RecvQueue = 5000 }, Unknown},
		{"a few bytes", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.Info.BytesReceived = 64 }, Likely},
		{"a request", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.Info.BytesReceived = 65 }, Unknown},
		{"a larger request is tiny", IdleFlood{Tiny: 65}, 61, func(s *sockdiag.Socket) { s.Info.BytesReceived = 65 }, Likely},
		{"silent for a minute", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.Info.LastDataRecv = time.Minute }, Likely},
		{"silent for less", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.Info.LastDataRecv = time.Minute - 1 }, Unknown},
		{"it is sent to", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.Info.LastDataSent = time.Second }, Unknown},
		{"something to send", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.SendQueue, s.Timer = 1, sockdiag.TimerOn }, Unknown},
		{"another state", IdleFlood{}, 500, func(s *sockdiag.Socket) { s.State = sockdiag.CloseWait }, Unknown},
		{"no tcp_info", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.Fields = 0 }, Possible},
		{"no tcp_info, one less", IdleFlood{}, 60, func(s *sockdiag.Socket) { s.Fields = 0 }, Unknown},
		{"tcp_info of an old kernel", IdleFlood{}, 61, func(s *sockdiag.Socket) { s.Info.Fields = sockdiag.InfoBase }, Possible},
		{"another limit", IdleFlood{Limit: 500}, 500, nil, Unknown},
		{"another port", IdleFlood{Sources: Sources{Ports: []uint16{5060}}}, 500, nil, Unknown},
	} {
		for _, remote := range []string{"198.51.100.7", "2001:db8:7::7"} {
			t.Run(tt.name+" "+remote, func(t *testing.T) {
				h := Host{Now: now, Sockets: append(idling(held(tt.n, sockdiag.Established, remote), tt.change), listener443())}
				found := find(t, tt.d, h)
				if tt.want == Unknown {
					checkSubjects(t, found)
					return
				}
				if len(found) != 1 || found[0].Confidence != tt.want || found[0].Count != 61 || found[0].Limit != 60 ||
					(tt.want == Possible) != mentions(text(found[0].Evidence.Missing), "tcp_info") {
					t.Errorf("got %+v", found)
				}
			})
		}
	}
}

// Busy connections of the same source do not count, and are told apart.
func TestIdleFloodApart(t *testing.T) {
	rows := idling(held(684, sockdiag.Established, "203.0.113.9"), nil)
	for i := range 100 {
		rows[i].Info.BytesReceived = 1e6
	}
	for i := 100; i < 150; i++ {
		rows[i].Timer = sockdiag.TimerKeepalive
	}
	rows = append(rows, held(43, sockdiag.Established, "10.1.2.3")...)
	found := find(t, IdleFlood{}, Host{Now: now, Sockets: append(rows, listener443())})
	checkSubjects(t, found, "203.0.113.9")
	if f := found[0]; f.Count != 584 || !mentions(f.Cause, "584 idle", "of 684", "on 534 of them") || len(f.Evidence.Sockets) == 0 {
		t.Errorf("got %+v", f)
	}
}

// A network of sources is one flood.
func TestIdleFloodNetwork(t *testing.T) {
	rows := idling(held(40, sockdiag.Established, addresses(10, "203.0.113.%d")...), nil)
	found := find(t, IdleFlood{}, Host{Now: now, Sockets: append(rows, listener443())})
	checkSubjects(t, found, "203.0.113.0/24")
	if f := found[0]; f.Count != 400 || f.Confidence != Possible || !mentions(f.Cause, "10 sources", "on 400 of them") {
		t.Errorf("got %+v", f)
	}
}

// That a source holds many connections is told once, by whom is surer of it.
func TestIdleFloodOnce(t *testing.T) {
	const a, b = "203.0.113.9", "2001:db8:7::7"
	noInfo := func(s *sockdiag.Socket) { s.Fields = 0 }
	busy := func(s *sockdiag.Socket) { s.Info.BytesReceived = 1e6 }
	for name, tt := range map[string]struct {
		rows []sockdiag.Socket
		want []string
	}{
		"idle":             {idling(held(61, sockdiag.Established, a, b), nil), []string{"IdleFlood 2001:db8:7::/64", "IdleFlood 203.0.113.9"}},
		"idle or not":      {idling(held(61, sockdiag.Established, a, b), noInfo), []string{"PerSource 2001:db8:7::/64", "PerSource 203.0.113.9"}},
		"one works":        {append(idling(held(61, sockdiag.Established, a), nil), idling(held(61, sockdiag.Established, b), busy)...), []string{"IdleFlood 203.0.113.9", "PerSource 2001:db8:7::/64"}},
		"in TIME_WAIT too": {append(idling(held(61, sockdiag.Established, a), nil), held(40, sockdiag.TimeWait, a)...), []string{"IdleFlood 203.0.113.9", "PerSource 203.0.113.9"}},
	} {
		var got []string
		for _, f := range Find(Host{Now: now, Sockets: append(tt.rows, listener443())}, PerSource{}, IdleFlood{}) {
			got = append(got, f.Detector+" "+f.Subject)
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
