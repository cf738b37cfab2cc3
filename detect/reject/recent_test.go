package reject

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/connsleuth/connsleuth/detect/packet"
)

func TestRecent(t *testing.T) {
	r := newRecent[int, string](3)
	put := func(keys ...int) {
		for _, k := range keys {
			r.put(k, fmt.Sprint("value ", k))
		}
	}
	check := func(want ...int) {
		t.Helper()
		for k := range 20 {
			v, ok := r.get(k)
			if ok != slices.Contains(want, k) || ok && v != fmt.Sprint("value ", k) || !ok && v != "" {
				t.Errorf("%d: %q, %t, want %v", k, v, ok, want)
			}
		}
		if len(r.by) != len(want) || len(r.order) > 3 {
			t.Errorf("%d values in %d places, want %d", len(r.by), len(r.order), len(want))
		}
	}
	check()
	put(1, 2)
	check(1, 2)
	put(3, 4)
	check(2, 3, 4)
	put(2, 5) // 2 was put again: 3 goes
	check(4, 2, 5)
	put(1, 2, 3, 2, 4) // 2 keeps its later place
	check(3, 2, 4)
	put(5, 5, 5)
	check(5)
	put(6, 7, 8, 9)
	check(7, 8, 9)
	r.put(9, "another")
	if v, _ := r.get(9); v != "another" {
		t.Errorf("got %q", v)
	}
	for k := range 1000 {
		r.put(k, "")
	}
	if len(r.by) != 3 || len(r.order) != 3 {
		t.Errorf("%d values in %d places", len(r.by), len(r.order))
	}
}

// The packets that reasons are about are told apart by direction, sequence
// number and flags.
func TestReasonKey(t *testing.T) {
	h := header(t, same, "in SYN")
	for name, change := range map[string]func(*packet.Header){
		"sequence number": func(h *packet.Header) { h.Seq++ },
		"flags":           func(h *packet.Header) { h.Flags |= packet.ACK },
		"port":            func(h *packet.Header) { h.SrcPort++ },
		"address":         func(h *packet.Header) { h.Dst = netip.MustParseAddr(router) },
	} {
		other := h
		change(&other)
		if reasonKeyOf(&h) == reasonKeyOf(&other) {
			t.Errorf("another %s has the same key", name)
		}
	}
	other := h
	other.TTL, other.Window = 1, 2
	if reasonKeyOf(&h) != reasonKeyOf(&other) {
		t.Error("another TTL has another key")
	}
}
