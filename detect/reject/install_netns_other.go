//go:build !linux

package reject

import "errors"

// installNS is a network namespace, which only Linux has.
type installNS struct{}

func openNetNS(string) (*installNS, error) { return nil, errors.ErrUnsupported }

func (*installNS) close() error { return nil }

func (*installNS) do(func() error) error { return errors.ErrUnsupported }
