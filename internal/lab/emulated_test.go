package lab_test

import (
	"os"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// An emulated machine says so to its programs, too, and no other is one.
func TestEmulated(t *testing.T) {
	init, err := os.ReadFile("/proc/1/cmdline")
	if err != nil {
		t.Skip(err)
	}
	if got, want := lab.Emulated(), os.Getenv("CONNSLEUTH_EMULATED") != ""; got != want {
		t.Errorf("emulated: %v, want %v; the first program is %q", got, want, init)
	}
}
