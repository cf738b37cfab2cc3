package nft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// kernel is a fake one with a set of IPv4 hosts.
type kernel struct {
	refuse  map[netip.Prefix]syscall.Errno
	until   int  // if not 0: refuse is of the transactions before it
	dies    int  // if not 0: all transactions from it on are EPERM
	room    int  // 0 is no limit
	offsets bool // it tells which element

	bans, pending map[netip.Prefix]ban.Until
	failed        bool
	transactions  int
}

func (k *kernel) handle(r nfnltest.Request) [][]byte {
	switch r.Type {
	case batchBegin:
		k.pending, k.failed = maps.Clone(k.bans), false
		k.transactions++
		return nil
	case batchEnd:
		if !k.failed {
			k.bans = k.pending
		}
		return nil
	}
	list, err := decodeElements(r.Data, kind{false, 32}, time.Now(), nil)
	if err != nil {
		panic(err)
	}
	for i, l := range list {
		if errno := k.element(r, l.entry); errno != 0 {
			k.failed = true
			offset := 0
			if k.offsets {
				key := l.entry.Prefix.Addr().AsSlice()
				if offset = headerLen + bytes.Index(r.Data, key); elementAt(r.Data, offset) != i {
					panic("elementAt")
				}
			}
			return [][]byte{nfnltest.Acknowledge(r, errno, "", uint32(offset))}
		}
	}
	if r.Flags&nfnl.Ack == 0 {
		return nil
	}
	return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
}

func (k *kernel) element(r nfnltest.Request, e ban.Entry) syscall.Errno {
	switch uint8(r.Type) {
	case getSetElem:
		if _, ok := k.bans[e.Prefix]; !ok {
			return syscall.ENOENT
		}
		return 0
	case delSetElem:
		if _, ok := k.pending[e.Prefix]; !ok {
			return syscall.ENOENT
		}
		delete(k.pending, e.Prefix)
		return 0
	}
	if k.dies > 0 && k.transactions >= k.dies {
		return syscall.EPERM
	}
	if errno := k.refuse[e.Prefix]; errno != 0 && (k.until == 0 || k.transactions < k.until) {
		return errno
	}
	_, have := k.pending[e.Prefix]
	switch {
	case have && r.Flags&nfnl.Exclude != 0:
		return syscall.EEXIST
	case !have && k.room > 0 && len(k.pending) >= k.room:
		return syscall.ENFILE
	case !have:
		k.pending[e.Prefix] = e.Until
	}
	return 0
}

func testHosts(n int) []netip.Prefix {
	list := make([]netip.Prefix, n)
	for i := range list {
		list[i] = ban.Host(netip.AddrFrom4([4]byte{192, 0, 2 + byte(i>>8), byte(i)}))
	}
	return list
}

// inKernels runs a test on kernels that tell which element they refuse, and on
// such as do not.
func inKernels(t *testing.T, test func(*testing.T, *kernel, *Backend)) {
	for _, offsets := range []bool{true, false} {
		t.Run(fmt.Sprintf("offsets=%v", offsets), func(t *testing.T) {
			k := &kernel{offsets: offsets, bans: map[netip.Prefix]ban.Until{}, refuse: map[netip.Prefix]syscall.Errno{}}
			conn, _ := nfnltest.Dial(k.handle)
			defer conn.Close() //nolint:errcheck // nothing under way
			test(t, k, &Backend{cfg: Config{Table: "t"}, nl: conn, sets: map[kind]bool{{false, 32}: true}, mirror: newMirror(nil)})
		})
	}
}

// banAll bans hosts, and wants exactly those of out refused, and the others in
// force.
func banAll(t *testing.T, k *kernel, b *Backend, hosts []netip.Prefix, why error, out ...netip.Prefix) {
	t.Helper()
	var entries []ban.Entry
	for _, p := range hosts {
		entries = append(entries, ban.Entry{Prefix: p, Until: ban.Forever})
	}
	failed, only := ban.Failed(b.Ban(t.Context(), entries...))
	var got []netip.Prefix
	for _, f := range failed {
		if got = append(got, f.Prefix); !errors.Is(f, why) {
			t.Errorf("%v: want %v", f, why)
		}
	}
	if !slices.Equal(got, out) || !only {
		t.Errorf("refused are %v (only: %v), want %v", got, only, out)
	}
	for _, p := range hosts {
		_, is := k.bans[p]
		_, noted := b.mirror.get(p)
		if want := !slices.Contains(out, p); is != want || noted != want {
			t.Errorf("%v: in force %v, noted %v", p, is, noted)
		}
	}
}

func TestRefused(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(40)
		out := []netip.Prefix{h[0], h[17], h[18], h[39]}
		for _, p := range out {
			k.refuse[p] = syscall.ERANGE
		}
		banAll(t, k, b, h, syscall.ERANGE, out...)
		k.refuse[h[3]] = syscall.EINVAL // when it is renewed
		failed, _ := ban.Failed(b.Ban(t.Context(), ban.Entry{Prefix: h[3], Until: ban.Forever}, ban.Entry{Prefix: h[4], Until: ban.Forever}))
		if len(failed) != 1 || failed[0].Prefix != h[3] {
			t.Errorf("refused are %v", failed)
		}
	})
}

// TestRefusedParts: what is refused of each part of a large call is told in the
// order of the entries.
func TestRefusedParts(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(2*most + 10)
		out := []netip.Prefix{h[700], h[most+300], h[2*most]}
		for _, p := range out {
			k.refuse[p] = syscall.ERANGE
		}
		banAll(t, k, b, h, syscall.ERANGE, out...)
	})
}

// twoParts are the entries of a call in two parts, of which the second has one of
// the first again.
func twoParts() (again netip.Prefix, entries []ban.Entry) {
	h := testHosts(2*most - 1)
	again = h[700]
	for _, p := range slices.Insert(slices.Clone(h), most+300, again) {
		entries = append(entries, ban.Entry{Prefix: p, Until: ban.Forever})
	}
	return again, entries
}

// TestRefusedThenTaken: what is refused of one part and taken of the next, which is
// planned before it is refused, is noted as in force.
func TestRefusedThenTaken(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		if !k.offsets {
			return // how many transactions it takes is another thing
		}
		again, entries := twoParts()
		k.refuse[again], k.until = syscall.ERANGE, 3
		failed, only := ban.Failed(b.Ban(t.Context(), entries...))
		if len(failed) != 1 || failed[0].Prefix != again || !only {
			t.Errorf("refused are %v", failed)
		}
		if len(k.bans) != len(entries)-1 || b.mirror.size() != len(k.bans) {
			t.Errorf("%d in force, %d noted, of %d", len(k.bans), b.mirror.size(), len(entries)-1)
		}
	})
}

// TestPartFails: an error of the whole at the second part of three leaves the first
// in force and noted, and nothing of the others, which are not told one by one.
func TestPartFails(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		k.dies = 2
		h := testHosts(3 * most)
		entries := make([]ban.Entry, len(h))
		for i, p := range h {
			entries[i] = ban.Entry{Prefix: p, Until: ban.Forever}
		}
		err := b.Ban(t.Context(), entries...)
		if failed, only := ban.Failed(err); len(failed) > 0 || only || !errors.Is(err, syscall.EPERM) {
			t.Errorf("got %v", err)
		}
		if len(k.bans) != most || b.mirror.size() != most || k.transactions != 2 {
			t.Errorf("%d in force, %d noted, %d transactions", len(k.bans), b.mirror.size(), k.transactions)
		}
	})
}

// TestRefusedAll ends also where nothing is taken.
func TestRefusedAll(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(100)
		for _, p := range h {
			k.refuse[p] = syscall.EINVAL
		}
		banAll(t, k, b, h, syscall.EINVAL, h...)
		if k.transactions > 2*len(h) {
			t.Errorf("%d transactions", k.transactions)
		}
	})
}

func TestRoom(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		k.room = 100
		h := testHosts(300)
		banAll(t, k, b, h[50:90], nil)
		var want []netip.Prefix // 40 are in force, so there is room for 60 of the others
		for i, p := range h {
			if i >= 100 {
				want = append(want, p)
			}
		}
		banAll(t, k, b, h, ban.ErrFull, want...)
		if k.offsets && k.transactions > 4 {
			t.Errorf("%d transactions", k.transactions)
		}
	})
}

// TestUnknown: what somebody else banned meanwhile is renewed all the same.
func TestUnknown(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(10)
		for _, p := range h[3:6] {
			k.bans[p] = ban.For(time.Now(), time.Hour)
		}
		banAll(t, k, b, h, nil)
		for p, until := range k.bans {
			if !until.Forever() {
				t.Errorf("%v until %v", p, until)
			}
		}
		if k.transactions != 2 {
			t.Errorf("%d transactions, want 2", k.transactions)
		}
	})
}

// TestBroken: an error that is not about an entry is one, and nothing is taken for
// in force.
func TestBroken(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(10)
		k.refuse[h[5]] = syscall.ENOMEM
		err := b.Ban(t.Context(), ban.Entry{Prefix: h[4], Until: ban.Forever}, ban.Entry{Prefix: h[5], Until: ban.Forever})
		if _, only := ban.Failed(err); only || !errors.Is(err, syscall.ENOMEM) || len(k.bans) != 0 || b.mirror.size() != 0 {
			t.Errorf("Ban: %v, in force %v, noted %v", err, k.bans, b.mirror)
		}
		k.refuse[h[5]] = syscall.EPERM
		if err := b.Ban(t.Context(), ban.Entry{Prefix: h[5], Until: ban.Forever}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Ban: %v", err)
		}
	})
}

func TestAbsent(t *testing.T) {
	inKernels(t, func(t *testing.T, k *kernel, b *Backend) {
		h := testHosts(10)
		banAll(t, k, b, h[:8], nil)
		delete(k.bans, h[2])
		failed, only := ban.Failed(b.Unban(t.Context(), append(h, h[0], netip.Prefix{})...))
		var got []netip.Prefix
		for _, f := range failed {
			if got = append(got, f.Prefix); !errors.Is(f, fs.ErrNotExist) {
				t.Error(f)
			}
		}
		if want := []netip.Prefix{h[2], h[8], h[9], h[0], {}}; !only || !slices.Equal(got, want) {
			t.Errorf("absent are %v, want %v", got, want)
		}
		if len(k.bans) != 0 || b.mirror.size() != 0 {
			t.Errorf("in force are %v, noted %v", k.bans, b.mirror)
		}
	})
}
