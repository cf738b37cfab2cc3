package lab

import (
	"io/fs"
	"net/netip"
)

// Pair and Diagnose are for the tests.
func Pair(p netip.Prefix) (a, b netip.Addr, err error) { return pair(p) }

func Diagnose(proc fs.FS, err error) *Forbidden { return diagnose(proc, "try", err) }
