package conntrack

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// happened frames f as an event.
func happened(t EventType, f Flow) []byte {
	typ, flags := uint16(subsystem<<8|opNew), uint16(0)
	switch t {
	case EventNew:
		flags = nfnl.Create | nfnl.Exclude
	case EventDestroy:
		typ = subsystem<<8 | opDelete
	}
	return nfnltest.Message(typ, flags, 0, payload(f))
}

// expectation is what the kernel sends to groups 4 to 6: another subsystem's
// message, which must not be taken for a flow.
func expectation() []byte { return nfnltest.Message(2<<8, nfnl.Create, 0, []byte{2}) }

// listen collects events, overruns among them, until there are n or an error
// ends the stream.
func listen(t *testing.T, c *Conn, opts EventOptions, n int) (got []string, last error) {
	t.Helper()
	for e, err := range c.Events(t.Context(), &opts) {
		switch {
		case last != nil:
			t.Errorf("%v, %v after %v", e, err, last)
		case errors.Is(err, ErrOverrun):
			got = append(got, "overrun")
		case err != nil:
			last = err
		default:
			got = append(got, e.Type.String()+" "+e.Flow.Original.Proto.String())
		}
		if err != nil && e != (Event{}) {
			t.Errorf("%v with %+v", err, e)
		}
		if len(got) == n {
			break
		}
	}
	return got, last
}

func TestEvents(t *testing.T) {
	tcp, udp := parse(t, lineTCP), parse(t, lineUDP)
	tests := map[string]struct {
		opts EventOptions
		want []string
	}{
		"all":     {EventOptions{}, []string{"NEW tcp", "overrun", "NEW udp", "UPDATE tcp", "overrun", "DESTROY udp", "DESTROY tcp"}},
		"filter":  {EventOptions{Filter: &Filter{Proto: ProtoTCP}}, []string{"NEW tcp", "overrun", "UPDATE tcp", "overrun", "DESTROY tcp"}},
		"types":   {EventOptions{Types: []EventType{EventNew, EventUpdate}}, []string{"NEW tcp", "overrun", "NEW udp", "UPDATE tcp"}},
		"destroy": {EventOptions{Types: []EventType{EventDestroy}}, []string{"overrun", "DESTROY udp", "DESTROY tcp"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, peer := fake(t, silent)
			tt.opts.Ready = func() {
				peer.Multicast(1, happened(EventNew, tcp), nil, slices.Concat(expectation(), happened(EventNew, udp)))
				peer.Multicast(2, happened(EventUpdate, tcp))
				peer.Multicast(3, nil, slices.Concat(happened(EventDestroy, udp), happened(EventDestroy, tcp)))
			}
			if got, err := listen(t, c, tt.opts, len(tt.want)); !slices.Equal(got, tt.want) || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestEventsOverrun breaks off at an overrun, and looks at its text.
func TestEventsOverrun(t *testing.T) {
	c, peer := fake(t, silent)
	opts := &EventOptions{Ready: func() { peer.Multicast(1, nil) }}
	for _, err := range c.Events(t.Context(), opts) {
		if !isOp(err, "events") || !errors.Is(err, ErrOverrun) || !strings.Contains(err.Error(), "1 datagrams so far") {
			t.Errorf("got %v", err)
		}
		break
	}
}

// TestEventsMalformed checks that an event that cannot be read is the last.
func TestEventsMalformed(t *testing.T) {
	c, peer := fake(t, silent)
	opts := EventOptions{Ready: func() {
		peer.Multicast(1, happened(EventNew, parse(t, lineTCP)), nfnltest.Message(subsystem<<8, 0, 0, []byte{2}), happened(EventNew, parse(t, lineTCP)))
	}}
	got, err := listen(t, c, opts, 3)
	if !slices.Equal(got, []string{"NEW tcp"}) || !errors.Is(err, errShort) || !isOp(err, "events") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestEventType(t *testing.T) {
	tests := []struct {
		typ, flags uint16
		want       EventType
		text       string
	}{
		{0x100, nfnl.Create | nfnl.Exclude, EventNew, "NEW"},
		{0x100, nfnl.Create, EventNew, "NEW"},
		{0x100, 0, EventUpdate, "UPDATE"},
		{0x100, nfnl.Multi, EventUpdate, "UPDATE"},
		{0x102, 0, EventDestroy, "DESTROY"},
		{0x101, 0, 0, "UNKNOWN"},
		{0x200, nfnl.Create | nfnl.Exclude, 0, "UNKNOWN"},
		{0x202, 0, 0, "UNKNOWN"},
		{0, 0, 0, "UNKNOWN"},
	}
	for _, tt := range tests {
		got := eventType(nfnl.Message{Type: tt.typ, Flags: tt.flags})
		if got != tt.want || got.String() != tt.text {
			t.Errorf("type %#x, flags %#x: %v", tt.typ, tt.flags, got)
		}
	}
}

func TestExpired(t *testing.T) {
	tcp := Flow{Original: Tuple{Proto: ProtoTCP}, Fields: FieldTCP}
	udp := Flow{Original: Tuple{Proto: ProtoUDP}}
	left := func(f Flow) Flow {
		f.Timeout, f.Fields = 3*time.Second, f.Fields|FieldTimeout
		return f
	}
	old := tcp // before Linux 5.13: neither time nor state
	old.Fields = FieldStatus
	tests := map[string]struct {
		event Event
		want  bool
	}{
		"TCP, no time left":          {Event{Type: EventDestroy, Flow: tcp}, true},
		"TCP, time left":             {Event{Type: EventDestroy, Flow: left(tcp)}, false},
		"TCP, an old kernel":         {Event{Type: EventDestroy, Flow: old}, false},
		"TCP, time but no state":     {Event{Type: EventDestroy, Flow: left(old)}, false},
		"UDP, no time left":          {Event{Type: EventDestroy, Flow: udp}, true},
		"UDP, time left":             {Event{Type: EventDestroy, Flow: left(udp)}, false},
		"an update without a time":   {Event{Type: EventUpdate, Flow: udp}, false},
		"a new entry without a time": {Event{Type: EventNew, Flow: tcp}, false},
		"no event":                   {Event{}, false},
	}
	for name, tt := range tests {
		if got := tt.event.Expired(); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
