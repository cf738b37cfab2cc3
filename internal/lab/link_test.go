package lab_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestPair(t *testing.T) {
	tests := []struct{ prefix, a, b string }{
		{"192.0.2.0/24", "192.0.2.1", "192.0.2.2"},
		{"192.0.2.77/24", "192.0.2.1", "192.0.2.2"},
		{"192.0.2.4/30", "192.0.2.5", "192.0.2.6"},
		{"192.0.2.4/31", "192.0.2.4", "192.0.2.5"},
		{"2001:db8::/64", "2001:db8::1", "2001:db8::2"},
		{"2001:db8::4/127", "2001:db8::4", "2001:db8::5"},
	}
	for _, test := range tests {
		a, b, err := lab.Pair(netip.MustParsePrefix(test.prefix))
		if err != nil || a.String() != test.a || b.String() != test.b {
			t.Errorf("%s: got %v, %v, %v, want %s, %s", test.prefix, a, b, err, test.a, test.b)
		}
	}
	if a, b, err := lab.Pair(netip.Prefix{}); err != nil || a.IsValid() || b.IsValid() {
		t.Errorf("no prefix: got %v, %v, %v", a, b, err)
	}
	if _, _, err := lab.Pair(netip.MustParsePrefix("192.0.2.1/32")); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("one address: got %v, want fs.ErrInvalid", err)
	}
}
