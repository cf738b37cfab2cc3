//go:build !linux

package lab

import (
	"errors"
	"fmt"
	"runtime"
)

// namespace stands for what only Linux has.
type namespace struct{}

func newNamespace() (*namespace, error) { return nil, unsupported() }

func (*namespace) enter() error { return unsupported() }

func (*namespace) path() string { return "" }

func (*namespace) fd() uint32 { return 0 }

func (*namespace) close() error { return nil }

func onMainThread() bool { return false }

func unsupported() error {
	return fmt.Errorf("network namespaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
