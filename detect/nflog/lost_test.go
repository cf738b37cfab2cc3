package nflog

import (
	"errors"
	"math"
	"testing"
)

func TestSequence(t *testing.T) {
	const none = math.MaxUint64
	tests := []struct {
		name string
		next uint32
		seqs []uint32
		want []uint64 // Count told before each packet, or none
	}{
		{"from the start", 0, []uint32{0, 1, 2}, []uint64{none, none, none}},
		{"lost before the first", 0, []uint32{3, 4}, []uint64{3, none}},
		{"one missing", 7, []uint32{7, 9, 10}, []uint64{none, 1, none}},
		{"two gaps", 0, []uint32{1, 2, 1002}, []uint64{1, none, 999}},
		{"wrap", math.MaxUint32, []uint32{math.MaxUint32, 0, 1}, []uint64{none, none, none}},
		{"gap over the wrap", math.MaxUint32 - 1, []uint32{2, 3}, []uint64{4, none}},
		{"largest gap", 0, []uint32{1<<31 - 1}, []uint64{1<<31 - 1}},
		{"twice", 5, []uint32{5, 5, 6}, []uint64{none, none, none}},
		{"twice at the wrap", math.MaxUint32, []uint32{math.MaxUint32, math.MaxUint32, 0}, []uint64{none, none, none}},
		{"restart", 1000, []uint32{0, 1, 2}, []uint64{0, none, none}},
		{"step back", 1000, []uint32{900, 901, 903}, []uint64{0, none, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := sequence{next: tt.next}
			for i, seq := range tt.seqs {
				got := uint64(none)
				if lost := s.advance(seq); lost != nil {
					got = lost.Count
				}
				if got != tt.want[i] {
					t.Errorf("packet %d (number %d): lost %d, want %d", i, seq, int64(got), int64(tt.want[i]))
				}
			}
		})
	}
}

// FuzzSequence loses packets of a stream as the input says: each byte delivers
// one packet and loses as many as its value before it. What is told must be
// what was lost, wherever the numbers wrap.
func FuzzSequence(f *testing.F) {
	f.Add(uint32(0), []byte{0, 0, 1, 0, 255})
	f.Add(uint32(math.MaxUint32-3), []byte{2, 0, 9, 0})
	f.Fuzz(func(t *testing.T, start uint32, drops []byte) {
		s := sequence{next: start}
		seq := start
		for i, n := range drops {
			seq += uint32(n)
			lost := s.advance(seq)
			switch {
			case n == 0 && lost != nil:
				t.Fatalf("packet %d: told %v, lost none", i, lost)
			case n > 0 && (lost == nil || lost.Count != uint64(n) || lost.Overrun):
				t.Fatalf("packet %d: told %v, lost %d", i, lost, n)
			}
			seq++
		}
	})
}

func TestLostError(t *testing.T) {
	for want, lost := range map[string]*Lost{
		"nflog: receive buffer overrun: packets were lost":                       {Overrun: true},
		"nflog: group 7: the sequence started again: packets may have been lost": {Group: 7},
		"nflog: group 7: 1 packet was lost":                                      {Group: 7, Count: 1},
		"nflog: group 7: 1048576 packets were lost":                              {Group: 7, Count: 1 << 20},
	} {
		if got := lost.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !errors.Is(lost, ErrLost) {
			t.Errorf("%v is not ErrLost", lost)
		}
	}
}
