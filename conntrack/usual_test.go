package conntrack

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// usualInputs are the attributes of tuples with and without ports.
func usualInputs() (tuples [][]byte) {
	for _, tuple := range []Tuple{tupleTCP, tupleUDP6, tupleEcho} {
		b := nfnl.NewBuilder(0, 0)
		tuple.encode(b, ctaTupleOrig, 0)
		tuples = append(tuples, b.Message().Data[4:])
	}
	return tuples
}

// checkUsual checks that a tuple that is read by its layout is what it is read
// attribute by attribute, and that others are left alone.
func checkUsual(t *testing.T, b []byte) {
	t.Helper()
	var usual, each Tuple
	var zone uint16
	if !usual.decodeUsual(b) {
		if usual != (Tuple{}) {
			t.Fatalf("got %+v of what is not usual", usual)
		}
		return
	}
	if err := each.decodeAny(b, &zone); err != nil || each != usual || zone != 0 {
		t.Fatalf("% x: got %+v, want %+v, %v", b, usual, each, err)
	}
}

func FuzzDecodeUsual(f *testing.F) {
	for _, b := range usualInputs() {
		f.Add(b)
	}
	f.Fuzz(checkUsual)
}

// TestDecodeUsualSpoiled changes one bit after the other.
func TestDecodeUsualSpoiled(t *testing.T) {
	for _, b := range usualInputs() {
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			checkUsual(t, b)
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestUsualIsUsual checks that what kernels send takes the short way.
func TestUsualIsUsual(t *testing.T) {
	for i, m := range decodeInputs(t) {
		for a := nfnl.Walk(m[nfgenmsgLen:]); a.Next(); {
			if a.Type != ctaTupleOrig && a.Type != ctaTupleReply {
				continue
			}
			var usual, each Tuple
			var zone uint16
			if err := each.decodeAny(a.Value, &zone); err != nil {
				t.Fatal(err)
			}
			if got := usual.decodeUsual(a.Value); got != (each.hasPorts() && zone == 0) {
				t.Errorf("message %d, %v: %v", i, each, got)
			}
		}
	}
}
