package conntrack

import (
	"errors"
	"iter"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func countFlows(t *testing.T, seq iter.Seq2[Flow, error]) (n int) {
	t.Helper()
	for f, err := range seq {
		must(t, err)
		if f.Original.check() != nil || !f.Has(FieldID) {
			t.Errorf("listed %+v", plain(f))
		}
		n++
	}
	return n
}

// TestListsEmpty has entries in the table only.
func TestListsEmpty(t *testing.T) {
	c, _ := emptyTable(t)
	create(t, c, entry(tupleTCP), entry(tupleUDP6))
	if n := countFlows(t, c.Unconfirmed(within(t))); n != 0 {
		t.Errorf("%d unconfirmed entries", n)
	}
	if n := countFlows(t, c.Dying(within(t))); n != 0 {
		t.Errorf("%d dying entries", n)
	}
}

// TestDying has a listener that wants every destroy event and reads none: the
// kernel keeps the entries whose event did not fit its buffer, until it is
// gone.
func TestDying(t *testing.T) {
	c, h := emptyTable(t)
	stop := deaf(t, h)
	list := flows(500)
	fill(t, c, list)
	s, err := c.Snapshot(within(t), nil)
	must(t, err)
	for _, f := range s.Flows {
		must(t, c.Delete(within(t), f))
	}
	if n := countFlows(t, c.All(within(t), nil)); n != 0 {
		t.Fatalf("%d entries are still in the table", n)
	}
	dying := countFlows(t, c.Dying(within(t)))
	t.Logf("SUPPORT: dying entries listed: %s", yesNo(dying > 0))
	u, err := c.Usage(within(t))
	must(t, err)
	if dying > len(list) || uint64(dying) > u.Count {
		t.Errorf("%d dying of %d, %d counted", dying, len(list), u.Count)
	}
	stop()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if dying = countFlows(t, c.Dying(within(t))); dying == 0 {
			return
		}
	}
	t.Errorf("%d entries do not die", dying)
}

// deaf is a member of NFNLGRP_CONNTRACK_DESTROY with NETLINK_BROADCAST_ERROR
// and the smallest buffer.
func deaf(t *testing.T, h *lab.Host) (stop func()) {
	t.Helper()
	fd := -1
	must(t, h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return os.NewSyscallError("socket", err)
	}))
	must(t, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_BROADCAST_ERROR, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(EventDestroy))))
	return func() { must(t, unix.Close(fd)) }
}
