package sockdiag

import "testing"

func TestParseState(t *testing.T) {
	for s := Established; s <= BoundInactive; s++ {
		for _, name := range []string{s.String(), s.SS()} {
			if got, err := ParseState(name); err != nil || got != s {
				t.Errorf("ParseState(%q) = %v, %v; want %v", name, got, err, s)
			}
		}
	}
	for name, want := range map[string]State{
		"established": Established, "Estab": Established, "close-wait": CloseWait, "CLOSE_WAIT": CloseWait,
		"fin-wait-1": FinWait1, "FIN_WAIT2": FinWait2, "closed": Close, "close": Close, "unconnected": Close,
		"listening": Listen, "syn-rcv": SynRecv, "time-wait": TimeWait,
	} {
		if got, err := ParseState(name); err != nil || got != want {
			t.Errorf("ParseState(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "-", "State(14)", "ESTABLISHED ", "10", "none"} {
		if got, err := ParseState(name); err == nil || got != 0 {
			t.Errorf("ParseState(%q) = %v, %v; want an error", name, got, err)
		}
	}
}

func TestStateString(t *testing.T) {
	for _, c := range []struct {
		s          State
		kernel, ss string
	}{
		{Established, "ESTABLISHED", "ESTAB"},
		{FinWait1, "FIN_WAIT1", "FIN-WAIT-1"},
		{Close, "CLOSE", "UNCONN"},
		{0, "State(0)", "State(0)"},
		{200, "State(200)", "State(200)"},
	} {
		if c.s.String() != c.kernel || c.s.SS() != c.ss {
			t.Errorf("%d: %q, %q; want %q, %q", c.s, c.s.String(), c.s.SS(), c.kernel, c.ss)
		}
	}
}

func TestStateSet(t *testing.T) {
	set := States(Established, CloseWait)
	for s := range State(255) {
		if want := s == Established || s == CloseWait; set.Has(s) != want {
			t.Errorf("Has(%v) = %v", s, !want)
		}
	}
	if got := set.String(); got != "ESTABLISHED|CLOSE_WAIT" {
		t.Errorf("String: %q", got)
	}
	if got := StateSet(0).String(); got != "none" {
		t.Errorf("String of the empty set: %q", got)
	}
	if Connected.Has(Listen) || Connected.Has(Close) || !Connected.Has(SynSent) || !Connected.Has(NewSynRecv) {
		t.Errorf("Connected: %v", Connected)
	}
	if Synchronized.Has(SynSent) || Synchronized|States(SynSent) != Connected {
		t.Errorf("Synchronized: %v", Synchronized)
	}
}

func TestQueryStates(t *testing.T) {
	for _, c := range []struct {
		states       StateSet
		kernel, rows StateSet
	}{
		{0, 0x1ffe, 0x1ffe},
		{States(Listen), 1 << 10, 1 << 10},
		{States(SynRecv), 1<<3 | 1<<12, 1<<3 | 1<<12},
		{States(NewSynRecv), 1<<3 | 1<<12, 1<<3 | 1<<12},
		{States(BoundInactive), 1 << 13, 1<<13 | 1<<7},
	} {
		q := Query{States: c.states}
		if k, r := q.kernelStates(), q.rowStates(); k != c.kernel || r != c.rows {
			t.Errorf("%v: asks %#x, takes %#x; want %#x, %#x", c.states, k, r, c.kernel, c.rows)
		}
	}
}
