package lab

import (
	"os"
	"slices"
	"strings"
)

// emulated is on the command line of the kernels that internal/ci/kernels
// boots, and nowhere else.
const emulated = "CONNSLEUTH_EMULATED=1"

// Emulated reports whether the machine is one that internal/ci/kernels
// emulates, by the command line of its kernel. There alone may a test change
// what is the machine's, not a host's: the limits of the tracker's table, say.
func Emulated() bool {
	line, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(line)), emulated)
}
