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

func TestReason(t *testing.T) {
	tcp := Flow{Original: Tuple{Proto: ProtoTCP}, Fields: FieldTCP}
	udp := Flow{Original: Tuple{Proto: ProtoUDP}}
	left := func(f Flow) Flow {
		f.Timeout, f.Fields = 3*time.Second, f.Fields|FieldTimeout
		return f
	}
	old := tcp // before Linux 5.13: neither time nor state
	old.Fields = FieldStatus
	destroy := func(port uint32, f Flow) Event { return Event{Type: EventDestroy, Port: port, Flow: f} }
	tests := map[string]struct {
		event Event
		want  Reason
	}{
		"TCP, no time left":              {destroy(0, tcp), ReasonExpired},
		"TCP, time left":                 {destroy(0, left(tcp)), ReasonRemoved},
		"TCP, an old kernel":             {destroy(0, old), ReasonUnknown},
		"TCP, time but no state":         {destroy(0, left(old)), ReasonRemoved},
		"UDP, no time left":              {destroy(0, udp), ReasonExpired},
		"UDP, time left":                 {destroy(0, left(udp)), ReasonRemoved},
		"by request":                     {destroy(1234, left(tcp)), ReasonDeleted},
		"by request, in its last second": {destroy(1234, tcp), ReasonDeleted},
		"by request, an old kernel":      {destroy(1234, old), ReasonDeleted},
		"an update without a time":       {Event{Type: EventUpdate, Flow: udp}, ReasonUnknown},
		"a new entry without a time":     {Event{Type: EventNew, Port: 7, Flow: tcp}, ReasonUnknown},
		"no event":                       {Event{}, ReasonUnknown},
	}
	for name, tt := range tests {
		if got := tt.event.Reason(); got != tt.want || tt.event.Expired() != (got == ReasonExpired) {
			t.Errorf("%s: %v, expired: %v", name, got, tt.event.Expired())
		}
	}
	for r, want := range map[Reason]string{ReasonUnknown: "unknown", ReasonExpired: "expired", ReasonDeleted: "deleted", ReasonRemoved: "removed", 9: "unknown"} {
		if r.String() != want {
			t.Errorf("%q, want %q", r, want)
		}
	}
}

// TestEventHeader reads what an event has and a row of a dump has not.
func TestEventHeader(t *testing.T) {
	b := nfnl.NewNetfilter(subsystem, opDelete, 0, familyIPv4)
	tupleTCP.encode(b, ctaTupleOrig, 0)
	b.U64(ctaEventTime, 1795252248_154281000)
	var e Event
	must(t, e.decode(nfnl.Message{Type: subsystem<<8 | opDelete, Port: 4098062186, Data: b.Message().Data}))
	want := Event{Type: EventDestroy, Port: 4098062186, At: 1795252248_154281000, Flow: Flow{Original: tupleTCP}}
	if e != want {
		t.Errorf("got %+v", e)
	}
}

// TestEventsAllocateNothing reads events of all types, and a malformed one at
// the end.
func TestEventsAllocateNothing(t *testing.T) {
	events := make([][]byte, 1000)
	for i, f := range flows(len(events)) {
		events[i] = happened(EventType(1+i%3), f)
	}
	read := func(n int) float64 {
		return testing.AllocsPerRun(3, func() {
			c, peer := fake(t, silent)
			seen := 0
			for _, err := range c.Events(t.Context(), &EventOptions{Ready: func() { peer.Multicast(1, events[:n]...) }}) {
				must(t, err)
				if seen++; seen == n {
					break
				}
			}
		})
	}
	if few, all := read(1), read(len(events)); all-few > 3 {
		t.Errorf("%v allocations for %d events, %v for 1", all, len(events), few)
	}
}
