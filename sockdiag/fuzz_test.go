package sockdiag

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// FuzzDecodeSocket asserts that no input makes decodeSocket panic, that an
// error comes with the zero Socket, that what was decoded survives being
// encoded, and that decoding in place leaves nothing of the row before.
func FuzzDecodeSocket(f *testing.F) {
	for _, name := range fixture.Names(f, "testdata") {
		f.Add(capture(f, name))
	}
	full := fullSocket()
	f.Add(encodeSocket(full))
	full.RecvQueue = 3
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSocket(b)
		if err != nil {
			if s != (Socket{}) {
				t.Errorf("error %v with %+v", err, s)
			}
			return
		}
		used := full
		if err := used.decode(b); err != nil || used != s {
			t.Errorf("decoded %+v\nin place %+v, %v", s, used, err)
		}
		if back, err := decodeSocket(encodeSocket(s)); err != nil || back != s {
			t.Errorf("decoded %+v\nagain   %+v, %v", s, back, err)
		}
	})
}

// FuzzOptions asserts that every bit of struct inet_diag_sockopt has one place,
// whichever end of the byte the machine's bit fields begin with.
func FuzzOptions(f *testing.F) {
	f.Add([]byte{0x52, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, big := range []bool{false, true} {
			o := socketOptions(b, big)
			back := encodeOptions(o, big)
			if n := min(len(b), 2); string(back[:n]) != string(b[:n]) || socketOptions(back, big) != o {
				t.Errorf("%x, big-endian %v: %b, back %x", b, big, o, back)
			}
		}
	})
}
