//go:build !linux

package snapshot

import (
	"errors"
	"time"
)

func openKmsg() (kmsg, time.Time, error) { return kmsg{}, time.Time{}, errors.ErrUnsupported }
