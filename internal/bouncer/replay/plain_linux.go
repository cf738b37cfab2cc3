package replay

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/program"
)

// StartPlain is Start without any capability.
func StartPlain(t *testing.T, h *lab.Host, args ...string) *Program {
	t.Helper()
	return &Program{program.StartPlain(t, h, args...), t}
}
