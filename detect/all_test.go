package detect

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every detector of the list can be found, tells its name in what it finds, and
// finds nothing where nothing is known.
func TestAll(t *testing.T) {
	var names []string
	for _, e := range All() {
		if e.Name() == "" || e.About == "" || e.Needs == 0 || slices.Contains(names, e.Name()) {
			t.Errorf("%+v", e)
		}
		if found := Find(Host{}, e.Detector); found != nil {
			t.Errorf("%s: %v", e.Name(), found)
		}
		names = append(names, e.Name())
		if one, err := Named(strings.ToUpper(e.Name())); err != nil || len(one) != 1 || one[0].Name() != e.Name() {
			t.Errorf("%s: %v, %v", e.Name(), one, err)
		}
	}
	if none, err := Named("Audit", "Nobody"); err == nil || none != nil {
		t.Errorf("%v, %v", none, err)
	}
}

func TestSeeing(t *testing.T) {
	all := []Entry{{Audit{}, NeedSettings, ""}, {Audit{}, NeedFlows | NeedSockets, ""}}
	for have, want := range map[Needs]int{0: 0, NeedSettings: 1, NeedFlows: 0, NeedFlows | NeedSockets: 1, NeedFlows | NeedSockets | NeedSettings: 2} {
		if can, cannot := Seeing(have, all...); len(can) != want || len(can)+len(cannot) != len(all) {
			t.Errorf("%v: %v, %v", have, can, cannot)
		}
	}
	for have, want := range map[Needs]int{0: 0, NeedFiles: 0, NeedFlows: 1, NeedSockets: 1, NeedRows: 1} {
		if can, _ := Seeing(have, Entry{Census{}, NeedRows, ""}); len(can) != want {
			t.Errorf("%v: %v", have, can)
		}
	}
	if s := (NeedFlows | NeedSettings).String(); s != "flows and settings" {
		t.Error(s)
	}
}

// What is written of a finding has all that it says.
func TestFindingText(t *testing.T) {
	h := rows(t, strings.TrimSpace, []string{
		"ipv4     2 tcp      6 431965 ESTABLISHED src=" + server + " dst=" + client + " sport=9102 dport=51522 [UNREPLIED] src=" + client + " dst=" + server + " sport=51522 dport=9102 mark=0 use=2",
	}, []string{"LISTEN " + server + " 9102 0.0.0.0 0"})
	ghosts, err := Named("Ghosts")
	if err != nil {
		t.Fatal(err)
	}
	f := Find(h, ghosts[0])[0]
	f.Evidence.Sockets, f.Evidence.Log, f.Evidence.Missing = h.Sockets, []string{"[ 1.5] table full"}, []string{"the peer"}
	f.Count, f.Limit, f.Since, f.Until = 7, 3, now, now.Add(time.Hour)
	text := f.Text()
	for _, want := range append([]string{"CRITICAL: " + f.Subject + " (Ghosts, likely)\n", "  " + f.Cause, "[7, limit 3]\n  since: 2026-05-04 12:00:00\n  until: 2026-05-04 13:00:00\n",
		"    | ipv4     2 tcp      6 431965 ESTABLISHED src=10.1.32.70", "    | ", "LISTEN", "    | net.netfilter.nf_conntrack_tcp_loose = 1\n",
		"    | [ 1.5] table full\n", "  not known: the peer\n"}, f.Fix...) {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	b, err := json.Marshal(f)
	var got struct {
		Detector, Severity, Confidence, Subject, Cause string
		Count, Limit                                   int
		Until                                          time.Time
		Fix                                            []string
		Evidence                                       struct {
			Flows, Sockets []map[string]any
			Settings       map[string]string
			Log, Missing   []string
		}
	}
	if err != nil || json.Unmarshal(b, &got) != nil || got.Detector != "Ghosts" || got.Severity != "critical" || got.Confidence != "likely" ||
		got.Subject != f.Subject || got.Cause != f.Cause || got.Count != 7 || got.Limit != 3 || !got.Until.Equal(f.Until) || len(got.Fix) != 3 ||
		len(got.Evidence.Flows) != 1 || len(got.Evidence.Sockets) != 1 || got.Evidence.Settings["net.netfilter.nf_conntrack_tcp_loose"] != "1" || len(got.Evidence.Log) != 1 || len(got.Evidence.Missing) != 1 {
		t.Errorf("%v\n%s", err, b)
	}
	b, err = Finding{Severity: Info}.MarshalJSON()
	if s := string(b); err != nil || strings.Contains(s, "since") || strings.Contains(s, `"log"`) || strings.Contains(s, "until") || !strings.Contains(s, `"fix":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestSeverityText(t *testing.T) {
	for _, s := range []Severity{Info, Warning, Critical} {
		b, err := s.MarshalText()
		var back Severity
		if err != nil || back.UnmarshalText(b) != nil || back != s {
			t.Errorf("%s became %v, %v", b, back, err)
		}
	}
	var s Severity
	if err := s.UnmarshalText([]byte("loud")); err == nil || s != 0 {
		t.Errorf("%v, %v", s, err)
	}
}
