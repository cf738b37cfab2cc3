package conntrack

import (
	"errors"
	"io/fs"
	"slices"
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

// TestDeleteAllWithoutCapability has all of a batch refused, and the rest not
// sent.
func TestDeleteAllWithoutCapability(t *testing.T) {
	c, h := emptyTable(t)
	const n = chunkSize + 50
	fill(t, c, flows(n))
	s, err := c.Snapshot(within(t), nil)
	must(t, err)
	for _, dry := range []bool{false, true} {
		must(t, h.Do(func() error {
			if err := dropCapabilities(); err != nil {
				return err
			}
			report, err := c.DeleteAll(within(t), slices.Values(s.Flows), &DeleteOptions{DryRun: dry})
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Errorf("dry %v: %v", dry, err)
			}
			if report.Refused+report.Unknown != chunkSize || report.Total() != chunkSize {
				t.Errorf("dry %v: %v", dry, report)
			}
			return nil
		}))
	}
	if left := count(t, c, nil); left != n {
		t.Errorf("%d are left", left)
	}
}

// dropCapabilities takes all effective capabilities from the calling thread.
func dropCapabilities() error {
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}
