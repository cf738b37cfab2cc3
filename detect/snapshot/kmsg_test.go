package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// records are given one by one. An error is one of a read.
func records(all ...any) func([]byte) (int, error) {
	return func(b []byte) (int, error) {
		if len(all) == 0 {
			return 0, syscall.EAGAIN
		}
		next := all[0]
		all = all[1:]
		if err, ok := next.(error); ok {
			return 0, err
		}
		return copy(b, next.(string)), nil
	}
}

// The records are those of Linux 6.18, but for their times and namespaces.
func TestKernelLog(t *testing.T) {
	boot := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	l := kernelLog{boot: boot, since: boot.Add(time.Minute), until: boot.Add(time.Hour), netns: 4026533001}
	got, err := l.read(records(
		syscall.EPIPE,
		"4,10,59000000,-;nf_conntrack: nf_conntrack: table full, dropping packet\n",
		"4,11,60000000,-;nf_conntrack: nf_conntrack: table full, dropping packet\n",
		"4,12,61000000,c;nf_conntrack: nf_conntrack: table full in netns 4026533001, dropping packet\n",
		"4,13,62000000,-;nf_conntrack: nf_conntrack: table full in netns 4026533002, dropping packet\n",
		"6,14,63999999,-,caller=T1;TCP: request_sock_TCP: Possible SYN flooding on port 192.0.2.2:443. Sending cookies.\n SUBSYSTEM=net\n",
		"3,15,64000000,-;VFS: file-max limit 9000 reached\n",
		"6,16,65000000,-;eth0: link up\n",
		"12,17,66000000,-;nf_conntrack: table full, dropping packet\n", // written by a program
		"nothing", "1,2;TCP: ", "x,1,70000000,-;TCP: ", "6,1,x,-;TCP: ", "6,1,-5,-;TCP: ", "",
	))
	want := []string{
		"[Mon May  4 12:01:00 2026] nf_conntrack: nf_conntrack: table full, dropping packet",
		"[Mon May  4 12:01:01 2026] nf_conntrack: nf_conntrack: table full in netns 4026533001, dropping packet",
		"[Mon May  4 12:01:03 2026] TCP: request_sock_TCP: Possible SYN flooding on port 192.0.2.2:443. Sending cookies.",
		"[Mon May  4 12:01:04 2026] VFS: file-max limit 9000 reached",
	}
	if !slices.Equal(got, want) || err != nil {
		t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
	}
	for _, line := range got { // as from a file
		if kind := kindOf([]byte(line)); kind != Log {
			t.Errorf("%s is %s", line, kind)
		}
	}
}

// It ends at what is logged meanwhile, keeps the last lines only, and with
// another error what was read until then.
func TestKernelLogEnds(t *testing.T) {
	boot := time.Now().Add(-time.Hour)
	l := kernelLog{boot: boot, until: boot.Add(5 * time.Second)}
	n := 0
	got, err := l.read(func(b []byte) (int, error) {
		n++
		return copy(b, fmt.Sprintf("6,%d,%d,-;TCP: line %d\n", n, n*1000, n)), nil
	})
	if len(got) != maxLog || err != nil || !strings.HasSuffix(got[maxLog-1], " line 5000") {
		t.Errorf("%d lines, %v", len(got), err)
	}
	got, err = l.read(records("6,1,1,-;TCP: one\n", fs.ErrInvalid, "6,2,2,-;TCP: two\n"))
	if len(got) != 1 || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("%q, %v", got, err)
	}
}
