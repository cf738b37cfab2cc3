//go:build !linux

package sockdiag

import (
	"errors"
	"os"
)

type scanner struct{}

func newScanner(*os.File, *Holders) (*scanner, error) { return nil, errors.ErrUnsupported }

func (*scanner) close() {}

func (*scanner) process(int, string) error { return errors.ErrUnsupported }
