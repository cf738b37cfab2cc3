package lab

import (
	"io/fs"
	"net/netip"
	"os"
)

// Pair and Diagnose are for the tests.
func Pair(p netip.Prefix) (a, b netip.Addr, err error) { return pair(p) }

func Diagnose(proc fs.FS, err error) *Forbidden { return diagnose(proc, "try", err) }

// Keep returns h in a namespace held by a file of its own, which outlives its
// network.
func Keep(h *Host) (kept *Host, release func() error, err error) {
	f, err := os.Open(h.NetNS())
	if err != nil {
		return nil, nil, err
	}
	return &Host{name: h.name, ns: &namespace{f}}, f.Close, nil
}
