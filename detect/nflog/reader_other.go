//go:build !linux

package nflog

import (
	"errors"
	"fmt"
	"runtime"
)

// Listen answers errors.ErrUnsupported: NFLOG is Linux's.
func Listen(*Config) (*Reader, error) {
	return nil, fmt.Errorf("nflog on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
