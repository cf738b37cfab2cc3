//go:build !linux

package nflog

import (
	"errors"
	"fmt"
	"runtime"
)

func listenGoNflog(*Config, *Reader) (source, error) {
	return nil, fmt.Errorf("NFLOG on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
