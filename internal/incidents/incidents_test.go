package incidents

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestScenarios plays every incident over both families, many side by side.
func TestScenarios(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := make(map[string][]Report)
			scenarios := slices.Clone(Scenarios)
			if ipv6 && testing.Short() { // one table has both families
				scenarios = slices.DeleteFunc(scenarios, func(s Scenario) bool { return s.Name == "table-full" })
			}
			errs := Play(t.Context(), scenarios, ipv6, 6, func(r Report) { told[r.Scenario] = append(told[r.Scenario], r) })
			for i, s := range scenarios {
				t.Run(s.Name, func(t *testing.T) { checkPlayed(t, told[s.Name], errs[i]) })
			}
		})
	}
}

// installed are scenarios that are played again with firewalls that log nothing,
// and what Watch is then, having installed what it needs: it is certain where it
// knows the rule that refuses, which it traces for packets of no connection.
var installed = map[string]detect.Confidence{
	"rule-order": detect.Likely, "untracked": detect.Certain, "not-allowed": detect.Certain, "no-service": detect.Certain,
	"gateway": detect.Certain,
}

// TestInstalled has Watch install what it needs.
func TestInstalled(t *testing.T) {
	for name, want := range installed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Find(name)
			if err != nil {
				t.Fatal(err)
			}
			var told []Report
			report := func(r Report) { told = append(told, r) }
			err = s.onStage(t.Context(), false, report, func(st *stage) error {
				st.client.installs, st.server.installs = true, true
				return s.whole(st)
			})
			checkPlayed(t, told, err)
			for _, r := range told {
				v := r.Verdict
				if v != nil && (v.Confidence != want || want == detect.Certain && !strings.Contains(v.Evidence.Rule.Value.Text, "reject")) {
					t.Errorf("%v, by rule %+v", v, v.Evidence.Rule)
				}
			}
		})
	}
}

// checkPlayed wants all four steps verified.
func checkPlayed(t *testing.T, told []Report, err error) {
	forbidden, ok := errors.AsType[*lab.Forbidden](err)
	switch {
	case ok && os.Getenv("CONNSLEUTH_LAB") != "require":
		t.Skip(forbidden)
	case errors.Is(err, errors.ErrUnsupported):
		t.Skip(err)
	case err != nil:
		t.Error(err)
	}
	var out bytes.Buffer
	var steps []Step
	text := Text(&out)
	for _, r := range told {
		text(r)
		if r.Kind == Result && r.OK {
			steps = append(steps, r.Step)
		}
		if v := r.Verdict; v != nil && (len(v.Facts) == 0 || len(v.Fix) == 0) {
			t.Error("an explanation without facts or remedy")
		}
	}
	if want := []Step{Reproduce, Detect, Explain, Remedy}; !slices.Equal(steps, want) {
		t.Errorf("verified %v, want %v", steps, want)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestFind(t *testing.T) {
	if s, err := Find("ghost"); err != nil || s.Name != "ghost" {
		t.Errorf("got %q, %v", s.Name, err)
	}
	if _, err := Find("gohst"); err == nil || !strings.Contains(err.Error(), `"gohst"`) {
		t.Errorf("got %v", err)
	}
}

// TestFailedCheck makes sure that a check that does not hold fails its step and
// the scenario.
func TestFailedCheck(t *testing.T) {
	s := Scenario{Name: "empty", play: func(st *stage) error {
		for _, step := range []Step{Reproduce, Detect, Explain} {
			st.result(step, nil, "", check{"this", true})
		}
		st.result(Remedy, nil, "told", check{"this", true}, check{"that", false})
		return nil
	}}
	var last Report
	err := s.Run(t.Context(), false, func(r Report) { last = r })
	if forbidden, ok := errors.AsType[*lab.Forbidden](err); ok && os.Getenv("CONNSLEUTH_LAB") != "require" {
		t.Skip(forbidden)
	}
	if !errors.Is(err, errFailed) || last.OK || last.Text != "told; NOT SEEN: that" {
		t.Errorf("got %v and %+v", err, last)
	}
	var out bytes.Buffer
	Text(&out)(last)
	if !strings.Contains(out.String(), "REMEDY: FAILED") {
		t.Error(out.String())
	}
}

// TestPlay has scenarios side by side, of which the first is the last to end.
func TestPlay(t *testing.T) {
	const atOnce = 2
	errs := []error{errors.New("first"), errors.New("second"), errors.New("third"), errors.New("fourth")}
	later := make(chan struct{})
	var playing, most atomic.Int32
	var scenarios []Scenario
	for i, err := range errs {
		scenarios = append(scenarios, Scenario{Name: err.Error(), play: func(st *stage) error {
			now := playing.Add(1)
			defer playing.Add(-1)
			most.Store(max(most.Load(), now))
			switch i {
			case 0:
				<-later
			case len(errs) - 1:
				close(later)
			}
			st.tell(Seen, "%v", err)
			must(err)
			return nil
		}})
	}
	var order []string
	got := Play(t.Context(), scenarios, false, atOnce, func(r Report) { order = append(order, r.Text) })
	if forbidden, ok := errors.AsType[*lab.Forbidden](got[0]); ok && os.Getenv("CONNSLEUTH_LAB") != "require" {
		t.Skip(forbidden)
	}
	if want := []string{"first", "second", "third", "fourth"}; !slices.Equal(order, want) || most.Load() > atOnce {
		t.Errorf("told %q, %d at once", order, most.Load())
	}
	for i, err := range errs {
		if !errors.Is(got[i], err) {
			t.Errorf("scenario %d: got %v", i, got[i])
		}
	}
}
