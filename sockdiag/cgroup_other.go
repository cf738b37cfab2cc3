//go:build !linux

package sockdiag

import (
	"errors"
	"io/fs"
)

func cgroupIDOf(path string) (uint64, error) {
	return 0, &fs.PathError{Op: "cgroup", Path: path, Err: errors.ErrUnsupported}
}
