package nfnl_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

func TestListen(t *testing.T) {
	c, peer := nfnltest.Dial(nil)
	defer c.Close()
	event := func(s string) []byte { return nfnltest.Message(0x100, 0, 0, []byte(s)) }
	cfg := nfnl.ListenConfig{Groups: []uint32{1, 3}, Ready: func() {
		go peer.Multicast(3, event("a"), nil, slices.Concat(event("b"), event("c")))
	}}
	var got []string
	for m, err := range c.Listen(t.Context(), cfg) {
		if over, ok := errors.AsType[*nfnl.Overrun](err); ok && errors.Is(err, nfnl.ErrOverrun) {
			got = append(got, over.Error())
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.Data))
		if len(got) == 4 {
			break
		}
	}
	want := []string{"a", "netlink receive buffer overrun: messages were lost (1 datagrams so far)", "b", "c"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestListenTellsLossInPlace has messages wait in the buffer when it overruns:
// those were sent before the loss. That it fills again means the loss is over.
func TestListenTellsLossInPlace(t *testing.T) {
	event := func(s string) []byte { return nfnltest.Message(0x100, 0, 0, []byte(s)) }
	for name, tt := range map[string]struct {
		meanwhile string // sent when that was read
		want      []string
	}{
		"emptied":      {"", []string{"a", "b", "c", "overrun"}},
		"filled again": {"b", []string{"a", "b", "overrun", "c", "d", "e"}},
		"lost again":   {"c", []string{"a", "b", "c", "overrun", "d", "e"}},
	} {
		c, peer := nfnltest.Dial(nil)
		peer.Crowd()
		cfg := nfnl.ListenConfig{Groups: []uint32{1}, Ready: func() { peer.Multicast(1, nil, event("a"), event("b"), event("c")) }}
		var got []string
		for m, err := range c.Listen(t.Context(), cfg) {
			text := string(m.Data)
			if errors.Is(err, nfnl.ErrOverrun) {
				text = "overrun"
			} else if err != nil {
				t.Fatal(err)
			}
			if text == tt.meanwhile {
				peer.Multicast(1, event("d"), event("e"))
			}
			if got = append(got, text); len(got) == len(tt.want) {
				break
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		_ = c.Close()
	}
}
