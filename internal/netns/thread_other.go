//go:build !linux

package netns

import (
	"errors"
	"io/fs"
)

// Thread is there on Linux only.
type Thread struct{}

// Enter returns errors.ErrUnsupported.
func Enter(string) (*Thread, error) { return nil, errors.ErrUnsupported }

// Do returns errors.ErrUnsupported.
func (*Thread) Do(func() error) error { return errors.ErrUnsupported }

// Close does nothing: there is no Thread.
func (*Thread) Close() {}

// Open implements fs.FS.
func (*Thread) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}

// ReadFile implements fs.ReadFileFS.
func (*Thread) ReadFile(name string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}
