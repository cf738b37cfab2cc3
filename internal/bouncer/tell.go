package bouncer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
)

// teller writes what is done, for people or as JSON.
type teller struct {
	w    io.Writer
	json bool
	now  func() time.Time
	err  error // the first of w
}

// line is one thing that was done.
type line struct {
	Time     time.Time       `json:"time"`
	Action   string          `json:"action"` // banned, restored, would-ban, refused, cut, note
	Prefix   *netip.Prefix   `json:"prefix,omitempty"`
	Until    *ban.Until      `json:"until,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Preview  *preview        `json:"preview,omitempty"`
	Prefixes []netip.Prefix  `json:"prefixes,omitempty"`
	Cut      *cutting        `json:"cut,omitempty"`
	Note     string          `json:"note,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// preview is a cut.Preview.
type preview struct {
	Sockets    int       `json:"sockets"`
	Flows      int       `json:"flows"`
	Bytes      uint64    `json:"bytes"`
	Services   []service `json:"services"`
	OwnSockets int       `json:"own_sockets"`
	OwnFlows   int       `json:"own_flows"`
	Forwarded  int       `json:"forwarded"`
}

type service struct {
	Proto string `json:"proto"`
	Port  uint16 `json:"port"`
	Flows int    `json:"flows"`
}

// cutting is a cut.Report.
type cutting struct {
	Sockets  steps `json:"sockets"`
	Flows    steps `json:"flows"`
	LeftOver left  `json:"left"`
	Done     bool  `json:"done"`
}

type steps struct {
	Ended   int `json:"ended"`
	Gone    int `json:"gone"`
	Refused int `json:"refused"`
}

type left struct {
	Sockets    int `json:"sockets"`
	Flows      int `json:"flows"`
	OwnSockets int `json:"own_sockets"`
	OwnFlows   int `json:"own_flows"`
	Forwarded  int `json:"forwarded"`
}

func (t *teller) put(l line, format string, args ...any) {
	text := fmt.Appendf(nil, format, args...)
	if t.json {
		l.Time = t.now().UTC()
		text = encode(l)
	}
	if _, err := t.w.Write(append(text, '\n')); t.err == nil {
		t.err = err
	}
}

func encode(l line) []byte {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Appendf(nil, `{"action":"note","error":%q}`, err)
	}
	return b
}

func of(action string, e ban.Entry) line {
	l := line{Action: action, Prefix: &e.Prefix, Until: &e.Until, Reason: e.Reason}
	if json.Valid([]byte(e.Evidence)) {
		l.Evidence = json.RawMessage(e.Evidence)
	}
	return l
}

func (t *teller) note(what string, err error) {
	t.put(line{Action: "note", Note: what, Error: err.Error()}, "note: %s: %v", what, err)
}

func (t *teller) entry(action string, e ban.Entry) { t.put(of(action, e), "%s %v", action, e) }

func (t *teller) refused(e ban.Entry, why error) {
	l := of("refused", e)
	l.Error = why.Error()
	t.put(l, "not banned: %v: %v (%s)", e.Prefix, why, e.Reason)
}

func (t *teller) would(e ban.Entry, p cut.Preview, err error) {
	l := of("would-ban", e)
	if err != nil {
		l.Error = err.Error()
		t.put(l, "would ban %v; what it would cut is not known: %v", e, err)
		return
	}
	l.Preview = &preview{Sockets: p.Sockets, Flows: p.Flows, Bytes: p.Bytes, Services: []service{},
		OwnSockets: p.OutboundSockets, OwnFlows: p.OutboundFlows, Forwarded: p.Forwarded}
	for _, s := range p.Services {
		l.Preview.Services = append(l.Preview.Services, service{s.Proto.String(), s.Port, s.Flows})
	}
	t.put(l, "would ban %v; it would cut %v", e, p)
}

func (t *teller) cut(banned []netip.Prefix, r cut.Report) {
	s, f, l := r.Sockets, r.Flows, r.Left
	t.put(line{Action: "cut", Prefixes: banned, Cut: &cutting{
		Sockets:  steps{s.Destroyed, s.Gone, s.Refused + s.Protected + s.Unknown + s.Skipped},
		Flows:    steps{f.Deleted, f.Gone + f.Changed, f.Refused + f.Unknown + f.Skipped},
		LeftOver: left{l.Sockets, l.Flows, l.OutboundSockets, l.OutboundFlows, l.Forwarded},
		Done:     r.Done(),
	}}, "cut %v: %v", banned, r)
}
