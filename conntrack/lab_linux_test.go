package conntrack

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWithoutCapability makes every call on a thread without CAP_NET_ADMIN. A
// Conn opened with it is of no help: the kernel asks for the sender's.
func TestWithoutCapability(t *testing.T) {
	c, h := emptyTable(t)
	flow := create(t, c, entry(tupleTCP))[0]
	for op, call := range calls {
		err := h.Do(func() error {
			if err := dropCapabilities(); err != nil {
				return err
			}
			return call(within(t), c, flow)
		})
		if !isOp(err, op) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("%s: %v", op, err)
		}
	}
	must(t, h.Do(func() error {
		if err := dropCapabilities(); err != nil {
			return err
		}
		own, err := Dial(nil) // the thread's namespace, which takes no capability
		if err != nil {
			return err
		}
		if _, err := own.Snapshot(within(t), nil); !isOp(err, "dump") || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a Conn opened without: %v", err)
		}
		return own.Close()
	}))
	holds(t, c, []Flow{flow})
}

// dropCapabilities takes all effective capabilities from the calling thread.
func dropCapabilities() error {
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}
