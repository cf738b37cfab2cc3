package nfnl_test

import (
	"errors"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// FuzzAnswers has a peer answer any bytes to a dump and to a request, as a
// datagram and as the payload of an error message, and then end the
// conversation. Nothing may panic, data must lie inside the datagram, and a
// refusal must have an errno.
func FuzzAnswers(f *testing.F) {
	seed := nfnltest.Request{Type: 0x101, Seq: 1}
	f.Add([]byte{}, uint16(0))
	f.Add(nfnltest.Done(1, syscall.EINTR), uint16(0x200))
	f.Add(nfnltest.Acknowledge(seed, syscall.EINVAL, "text", 20), uint16(0x300))
	f.Add(nfnltest.Acknowledge(seed, 0, "", 0)[16:], uint16(0x300))
	f.Fuzz(func(t *testing.T, b []byte, flags uint16) {
		c, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
			const nlmsgError = 2
			return [][]byte{b, nfnltest.Message(nlmsgError, flags, r.Seq, b), nfnltest.Acknowledge(r, 0, "", 0)}
		})
		defer c.Close()
		check := func(err error) {
			if kernel, ok := errors.AsType[*nfnl.Error](err); ok && (kernel.Errno == 0 || kernel.Error() == "") {
				t.Errorf("a refusal without an errno: %#v", kernel)
			}
			if err != nil && !utf8.ValidString(err.Error()) && utf8.Valid(b) {
				t.Errorf("garbled: %q", err)
			}
		}
		for m, err := range c.Dump(t.Context(), request) {
			check(err)
			if len(m.Data) > nfnl.BufferSize {
				t.Errorf("%d bytes of data", len(m.Data))
			}
		}
		check(c.Do(t.Context(), request, func(nfnl.Message) error { return nil }))
		check(c.Batch(t.Context(), []nfnl.Message{request}, func(_ int, err error) { check(err) }))
	})
}
