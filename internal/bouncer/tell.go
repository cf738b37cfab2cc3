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
}

// line is one thing that was done.
type line struct {
	Time     time.Time       `json:"time"`
	Action   string          `json:"action"` // banned, would-ban, refused, cut
	Prefix   *netip.Prefix   `json:"prefix,omitempty"`
	Prefixes []netip.Prefix  `json:"prefixes,omitempty"`
	Until    *ban.Until      `json:"until,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Error    string          `json:"error,omitempty"`
	Report   string          `json:"report,omitempty"`
	Preview  *cut.Preview    `json:"preview,omitempty"`
}

func (t teller) put(l line, text string) {
	if !t.json {
		fmt.Fprintln(t.w, text)
		return
	}
	l.Time = time.Now().UTC()
	b, err := json.Marshal(l)
	if err != nil {
		b = fmt.Appendf(nil, `{"error":%q}`, err)
	}
	fmt.Fprintln(t.w, string(b))
}

func of(action string, e ban.Entry) line {
	l := line{Action: action, Prefix: &e.Prefix, Until: &e.Until, Reason: e.Reason}
	if json.Valid([]byte(e.Evidence)) {
		l.Evidence = json.RawMessage(e.Evidence)
	}
	return l
}

func (t teller) banned(e ban.Entry) { t.put(of("banned", e), fmt.Sprint("banned ", e)) }

func (t teller) refused(e ban.Entry, why error) {
	l := of("refused", e)
	l.Error = why.Error()
	t.put(l, fmt.Sprintf("not banned: %v: %v (%s)", e.Prefix, why, e.Reason))
}

func (t teller) would(e ban.Entry, p cut.Preview, err error) {
	l := of("would-ban", e)
	l.Preview = &p
	text := fmt.Sprintf("would ban %v; it would cut %v", e, p)
	if err != nil {
		l.Preview, l.Error = nil, err.Error()
		text = fmt.Sprintf("would ban %v; what it would cut is not known: %v", e, err)
	}
	t.put(l, text)
}

func (t teller) cut(banned []netip.Prefix, r cut.Report) {
	t.put(line{Action: "cut", Prefixes: banned, Report: r.String()}, fmt.Sprintf("cut %v: %v", banned, r))
}
