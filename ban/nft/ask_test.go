package nft

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestForgotten: what the mirror lost without the kernel's word may be there.
func TestForgotten(t *testing.T) {
	now := time.Now()
	full := func() *Backend {
		b := &Backend{cfg: Config{Table: "t"}, mirror: newMirror(nil), gen: 5}
		for i, p := range testHosts(2000) {
			b.mirror.set(p, mark{end: end(now.UnixMilli()+int64(i), true)})
		}
		return b
	}
	b := full()
	if b.prune(now); b.gen != 5 || b.mirror.size() != 2000 {
		t.Errorf("nothing is over: generation %d, %d bans", b.gen, b.mirror.size())
	}
	b = full()
	if b.prune(now.Add(time.Hour)); b.gen != 0 || b.mirror.size() != 0 {
		t.Errorf("all are over: generation %d, %d bans", b.gen, b.mirror.size())
	}
	b = full()
	if b.settle(&part{}, &part{}, nil); b.gen != 5 {
		t.Errorf("nothing refused: generation %d", b.gen)
	}
	one := lifted(testHosts(1)[0])
	if b.settle(&part{out: []change{one}}, &part{}, nil); b.gen != 0 {
		t.Errorf("one refused: generation %d", b.gen)
	}
	if b.committed(); b.gen != 0 {
		t.Errorf("none known and one more: generation %d", b.gen)
	}
}

// TestNotAsked: answers that do not come whole are not taken for all.
func TestNotAsked(t *testing.T) {
	hosts := testHosts(300)
	for name, tt := range map[string]struct {
		answer func(n int, r nfnltest.Request, told []netip.Prefix) [][]byte
		want   error
		pages  int
	}{
		"overrun": {func(int, nfnltest.Request, []netip.Prefix) [][]byte { return [][]byte{nil} }, errNotAsked, 0},
		"silent": {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte {
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}, errNotAsked, 0},
		"empty":   {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte { return refused(r, syscall.ENOENT) }, errNotAsked, 0},
		"refused": {func(_ int, r nfnltest.Request, _ []netip.Prefix) [][]byte { return refused(r, syscall.EPERM) }, syscall.EPERM, 0},
		"all": {func(_ int, r nfnltest.Request, told []netip.Prefix) [][]byte {
			return append(elementMessages(r, told), nfnltest.Acknowledge(r, 0, "", 0))
		}, nil, 3},
		"the second is over": {func(n int, r nfnltest.Request, told []netip.Prefix) [][]byte {
			if n == 0 {
				return append(elementMessages(r, told[:1]), refused(r, syscall.ENOENT)...)
			}
			return append(elementMessages(r, told), nfnltest.Acknowledge(r, 0, "", 0))
		}, nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			conn, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
				list, err := decodeElements(r.Data, kind{false, 32}, time.Now(), nil)
				if err != nil {
					t.Error(err)
				}
				var told []netip.Prefix
				for _, l := range list {
					told = append(told, l.entry.Prefix)
				}
				n++
				return tt.answer(n-1, r, told)
			})
			defer conn.Close() //nolint:errcheck // nothing under way
			b := &Backend{cfg: Config{Table: "t"}, nl: conn, mirror: newMirror(nil)}
			for _, p := range hosts {
				b.mirror.set(p, mark{end: never})
			}
			q := question{b: b}
			err := q.ask(t.Context(), kind{false, 32}, b.mirror.keys()[kind{false, 32}])
			if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || len(q.pages) != tt.pages) {
				t.Fatalf("%d pages, %v; want %d, %v", len(q.pages), err, tt.pages, tt.want)
			}
			if tt.want != nil {
				return
			}
			got := make(map[netip.Prefix]bool)
			for e, err := range b.bans(q.pages) {
				if got[e.Prefix] = true; err != nil {
					t.Error(err)
				}
			}
			for _, p := range q.absent {
				if got[p] {
					t.Errorf("%v is there and not", p)
				}
				got[p] = true
			}
			if len(q.absent) != tt.pages-3 || !maps.Equal(got, set(hosts)) {
				t.Errorf("%d told, %d absent", len(got), len(q.absent))
			}
		})
	}
}

// TestShare: each key is in one share.
func TestShare(t *testing.T) {
	for _, size := range []int{4, 16} {
		for all := range 20 {
			keys := make([]byte, all*size)
			for i := range keys {
				keys[i] = byte(i)
			}
			for n := 1; n <= 4; n++ {
				var got []byte
				for i := range n {
					got = append(got, share(keys, size, i, n)...)
				}
				if !slices.Equal(got, keys) {
					t.Errorf("%d keys in %d shares: %d bytes", all, n, len(got))
				}
			}
		}
	}
}

func set(list []netip.Prefix) map[netip.Prefix]bool {
	m := make(map[netip.Prefix]bool)
	for _, p := range list {
		m[p] = true
	}
	return m
}

func refused(r nfnltest.Request, errno syscall.Errno) [][]byte {
	return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
}

// elementMessages answers with a message for each host.
func elementMessages(r nfnltest.Request, hosts []netip.Prefix) (answers [][]byte) {
	for _, p := range hosts {
		m := elementsOf(newSetElem, time.Now(), ban.Entry{Prefix: p, Until: ban.Forever})[0]
		answers = append(answers, nfnltest.Message(subsystem<<8|newSetElem, 0, r.Seq, m.Data))
	}
	return answers
}
