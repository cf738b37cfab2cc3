//go:build !linux

package reject

import "errors"

// netns is a network namespace, which only Linux has.
type netns struct{}

func openNetNS(string) (*netns, error) { return nil, errors.ErrUnsupported }

func (*netns) close() error { return nil }

func (*netns) do(func() error) error { return errors.ErrUnsupported }
