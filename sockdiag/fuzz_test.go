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
	full := withInfo(captured["listen-ipv6"], numberedInfo())
	full.Shutdown, full.V6Only, full.Mark, full.RecvQueue = 1, true, 2, 3
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
