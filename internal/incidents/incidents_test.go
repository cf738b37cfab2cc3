package incidents

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestScenarios plays every incident over both families, side by side.
func TestScenarios(t *testing.T) {
	for _, s := range Scenarios {
		for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
			t.Run(s.Name+"/"+name, func(t *testing.T) {
				t.Parallel()
				play(t, s, ipv6)
			})
		}
	}
}

func play(t *testing.T, s Scenario, ipv6 bool) {
	var out bytes.Buffer
	var steps []Step
	text := Text(&out)
	err := s.Run(t.Context(), ipv6, func(r Report) {
		text(r)
		if r.Kind == Result && r.OK {
			steps = append(steps, r.Step)
		}
		if v := r.Verdict; v != nil && (len(v.Facts) == 0 || len(v.Fix) == 0) {
			t.Error("an explanation without facts or remedy")
		}
	})
	if forbidden, ok := errors.AsType[*lab.Forbidden](err); ok && os.Getenv("CONNSLEUTH_LAB") != "require" {
		t.Skip(forbidden)
	}
	if err != nil {
		t.Error(err)
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
