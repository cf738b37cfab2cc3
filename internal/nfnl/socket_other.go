//go:build !linux

package nfnl

import (
	"errors"
	"fmt"
	"runtime"
)

// Dial answers errors.ErrUnsupported: netlink is Linux's.
func Dial(int, *Config) (*Conn, error) {
	return nil, fmt.Errorf("netlink on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
