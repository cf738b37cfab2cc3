package bouncer

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/cut"
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// tellAll tells one of each.
func tellAll(t *teller) {
	e := ban.Entry{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Until: ban.At(t.now().Add(270 * time.Second)),
		Reason: "Conn Cnt: 684 is greater than limit:60", Evidence: `{"count":684}`}
	forever := ban.Entry{Prefix: netip.MustParsePrefix("2001:db8::/64"), Until: ban.Forever, Evidence: "not JSON"}
	t.entry("banned", e)
	t.entry("restored", forever)
	t.refused(e, errors.New("protected"))
	t.would(e, cut.Preview{Sockets: 2, Flows: 3, Bytes: 400, OutboundSockets: 5, OutboundFlows: 6, Forwarded: 7,
		Services: []cut.Service{{Proto: conntrack.ProtoTCP, Port: 443, Flows: 3}}}, nil)
	t.would(forever, cut.Preview{}, nil)
	t.would(forever, cut.Preview{}, errors.New("not known"))
	t.cut([]netip.Prefix{e.Prefix, forever.Prefix}, cut.Report{
		Sockets: sockdiag.DestroyReport{Destroyed: 684, Gone: 2, Refused: 3, Protected: 4, Unknown: 5, Skipped: 6},
		Flows:   conntrack.DeleteReport{Deleted: 685, Gone: 7, Changed: 8, Refused: 9, Unknown: 10, Skipped: 11},
		Left:    cut.Left{Sockets: 1, Flows: 2, OutboundSockets: 3, OutboundFlows: 4, Forwarded: 5},
	})
	t.cut([]netip.Prefix{e.Prefix}, cut.Report{})
	t.note("bans have no effect", errors.New("no rule"))
}

func told(asJSON bool) string {
	var w strings.Builder
	tellAll(&teller{w: &w, json: asJSON, now: func() time.Time { return time.Date(2026, 11, 21, 14, 0, 0, 0, time.FixedZone("", 3600)) }})
	return w.String()
}

func TestJSON(t *testing.T) {
	const want = `{"time":"2026-11-21T13:00:00Z","action":"banned","prefix":"203.0.113.9/32","until":"2026-11-21T13:04:30Z","reason":"Conn Cnt: 684 is greater than limit:60","evidence":{"count":684}}
{"time":"2026-11-21T13:00:00Z","action":"restored","prefix":"2001:db8::/64","until":"forever"}
{"time":"2026-11-21T13:00:00Z","action":"refused","prefix":"203.0.113.9/32","until":"2026-11-21T13:04:30Z","reason":"Conn Cnt: 684 is greater than limit:60","evidence":{"count":684},"error":"protected"}
{"time":"2026-11-21T13:00:00Z","action":"would-ban","prefix":"203.0.113.9/32","until":"2026-11-21T13:04:30Z","reason":"Conn Cnt: 684 is greater than limit:60","evidence":{"count":684},"preview":{"sockets":2,"flows":3,"bytes":400,"services":[{"proto":"tcp","port":443,"flows":3}],"own_sockets":5,"own_flows":6,"forwarded":7}}
{"time":"2026-11-21T13:00:00Z","action":"would-ban","prefix":"2001:db8::/64","until":"forever","preview":{"sockets":0,"flows":0,"bytes":0,"services":[],"own_sockets":0,"own_flows":0,"forwarded":0}}
{"time":"2026-11-21T13:00:00Z","action":"would-ban","prefix":"2001:db8::/64","until":"forever","error":"not known"}
{"time":"2026-11-21T13:00:00Z","action":"cut","prefixes":["203.0.113.9/32","2001:db8::/64"],"cut":{"sockets":{"ended":684,"gone":2,"refused":18},"flows":{"ended":685,"gone":15,"refused":30},"left":{"sockets":1,"flows":2,"own_sockets":3,"own_flows":4,"forwarded":5},"done":false}}
{"time":"2026-11-21T13:00:00Z","action":"cut","prefixes":["203.0.113.9/32"],"cut":{"sockets":{"ended":0,"gone":0,"refused":0},"flows":{"ended":0,"gone":0,"refused":0},"left":{"sockets":0,"flows":0,"own_sockets":0,"own_flows":0,"forwarded":0},"done":true}}
{"time":"2026-11-21T13:00:00Z","action":"note","note":"bans have no effect","error":"no rule"}
`
	if got := told(true); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestText(t *testing.T) {
	for _, want := range []string{
		"banned 203.0.113.9/32 until 2026-11-21T13:04:30Z: Conn Cnt: 684 is greater than limit:60\n",
		"restored 2001:db8::/64 until forever\n",
		"not banned: 203.0.113.9/32: protected (Conn Cnt: 684 is greater than limit:60)\n",
		"would ban 203.0.113.9/32 until 2026-11-21T13:04:30Z: Conn Cnt: 684 is greater than limit:60; it would cut 2 sockets, 3 flows, 400 bytes, services tcp/443 (3);",
		"would ban 2001:db8::/64 until forever; what it would cut is not known: not known\n",
		"cut [203.0.113.9/32 2001:db8::/64]: sockets: destroyed 684, ",
		"note: bans have no effect: no rule\n",
	} {
		if got := told(false); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestLost: what cannot be written is an error.
func TestLost(t *testing.T) {
	b := &Bouncer{backend: new(ban.Memory), flags: Flags{Act: Act{Apply: true}}, tell: teller{w: full{}, now: time.Now}}
	_, err := b.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Until: ban.Forever})
	if !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
