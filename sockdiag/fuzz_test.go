package sockdiag

import (
	"path/filepath"
	"strings"
	"testing"
)

// FuzzDecodeSocket asserts that no input makes decodeSocket panic, that an
// error comes with the zero Socket, that what was decoded survives being
// encoded, and that decoding in place leaves nothing of the row before.
func FuzzDecodeSocket(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("no captured rows: %v", err)
	}
	for _, file := range files {
		f.Add(capture(f, strings.TrimSuffix(filepath.Base(file), ".hex")))
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
