package ipset

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

var (
	testHosts = &set{name: "hosts", typ: hashIP, bits: 32, comments: true}
	testNets6 = &set{name: "nets6", typ: hashNet, ipv6: true, comments: true}
	testNow   = time.Date(2026, 12, 22, 20, 30, 1, 0, time.UTC)
)

// entries reads what many writes, which is laid out as the kernel's lists are.
func entries(t testing.TB, s *set, e ban.Entry) (got []element) {
	t.Helper()
	m := s.many(new(nfnl.Builder), cmdAdd, testNow, []ban.Entry{e}, []int{0})
	more, err := s.elements(m.Data, func(e element) bool {
		got = append(got, e)
		return true
	})
	if err != nil || !more {
		t.Fatal(more, err)
	}
	return got
}

func TestRoundTrip(t *testing.T) {
	four, six := netip.MustParsePrefix("198.51.100.9/32"), netip.MustParsePrefix("2001:db8:1::/64")
	for _, tt := range []struct {
		set   *set
		entry ban.Entry
		want  element
	}{
		{testHosts, ban.Entry{Prefix: four, Until: ban.For(testNow, 270*time.Second), Reason: "why"}, element{prefix: four, timeout: 270, comment: "why"}},
		{testHosts, ban.Entry{Prefix: four, Until: ban.For(testNow, 269*time.Second+2)}, element{prefix: four, timeout: 269}},
		{testHosts, ban.Entry{Prefix: four, Until: ban.For(testNow, 269*time.Second+2*time.Millisecond)}, element{prefix: four, timeout: 270}},
		{testHosts, ban.Entry{Prefix: four, Until: ban.At(testNow)}, element{prefix: four, timeout: 1}},
		{testHosts, ban.Entry{Prefix: four, Until: ban.For(testNow, maxTimeout*time.Second)}, element{prefix: four, timeout: maxTimeout}},
		{testHosts, ban.Entry{Prefix: four, Until: ban.Forever}, element{prefix: four}},
		{testNets6, ban.Entry{Prefix: six, Until: ban.Forever}, element{prefix: six}},
	} {
		if got := entries(t, tt.set, tt.entry); len(got) != 1 || got[0] != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.entry, got, tt.want)
		}
		if n := len(tt.set.one(cmdAdd, testNow, &tt.entry, 0).Data); n > size(&tt.entry)+40 {
			t.Errorf("%+v: %d bytes, and size says %d", tt.entry, n, size(&tt.entry))
		}
	}
}

func TestComment(t *testing.T) {
	for reason, want := range map[string]string{
		"Conn Cnt: 684 is greater than limit:60": "Conn Cnt: 684 is greater than limit:60",
		"a \"b\"\nc\x00\x7f":                     "a 'b' c",
		"bad \xff utf8":                          "bad  utf8",
		strings.Repeat("€", 100):                 strings.Repeat("€", 85),
		strings.Repeat("€", 84) + "1234":         strings.Repeat("€", 84) + "123",
		strings.Repeat("x", 254) + "€":           strings.Repeat("x", 254),
	} {
		if got := comment(reason); got != want || len(got) > maxComment || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
}

func TestDecodeAllocations(t *testing.T) {
	e := ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Until: ban.Forever}
	m := testHosts.many(new(nfnl.Builder), cmdAdd, testNow, []ban.Entry{e}, []int{0, 0, 0})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := testHosts.elements(m.Data, func(element) bool { return true }); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(testHosts.many(new(nfnl.Builder), cmdAdd, testNow, []ban.Entry{{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Until: ban.Forever, Reason: "why"}}, []int{0}).Data)
	f.Add(testNets6.many(new(nfnl.Builder), cmdAdd, testNow, []ban.Entry{{Prefix: netip.MustParsePrefix("2001:db8:1::/64"), Until: ban.Forever}}, []int{0}).Data)
	f.Add(testHosts.create(&Config{HashSize: 1, MaxElem: 2}, 6, 300).Data)
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range []*set{testHosts, testNets6} {
			_, err := s.elements(b, func(e element) bool {
				if !e.prefix.IsValid() || e.prefix.Addr().Is6() != s.ipv6 {
					t.Errorf("%+v in %s", e, s.name)
				}
				return true
			})
			if len(b) < 4 && err == nil {
				t.Error("a message without a header is read")
			}
		}
		if h, err := decodeHeader(b); err != nil && h != (header{}) {
			t.Errorf("%+v with %v", h, err)
		}
	})
}

func TestDecodeHeader(t *testing.T) {
	s := &set{name: "x", typ: hashIP, ipv6: true, bits: 64}
	h, err := decodeHeader(s.create(&Config{HashSize: 1024, MaxElem: 9, Counters: true}, 2, 300).Data)
	want := header{typ: hashIP, family: inet6, ipv6: true, timeouts: true, netmask: 64, flags: withComment | withCounters, maxElem: 9}
	if h != want || err != nil {
		t.Errorf("%+v, %v; want %+v", h, err, want)
	}
	if err := s.adopt(h); err != nil || !s.comments || s.maxElem != 9 {
		t.Errorf("adopt: %v, %+v", err, s)
	}
	if h, err = decodeHeader(s.create(&Config{}, 1, 0).Data); h.flags != 0 || err != nil {
		t.Errorf("comments where the kernel has none: %+v, %v", h, err)
	}
}

// TestRefusals: what errors are to callers, by a kernel that refuses all.
func TestRefusals(t *testing.T) {
	p := netip.MustParsePrefix("198.51.100.9/32")
	for _, tt := range []struct {
		errno      syscall.Errno
		ban, unban error
		entry      bool // it is of the entry
		text       string
	}{
		{syscall.EPERM, fs.ErrPermission, fs.ErrPermission, false, "CAP_NET_ADMIN"},
		{syscall.ENOENT, ban.ErrNotEnforcing, ban.ErrNotEnforcing, false, "set hosts: the set is gone"},
		{syscall.ENOMEM, syscall.ENOMEM, syscall.ENOMEM, false, "set hosts"},
		{4352, ban.ErrFull, ban.ErrFull, true, "maxelem"},
		{4353, code(4353), code(4353), true, "the address 0"},
		{4103, codeExist, fs.ErrNotExist, true, "198.51.100.9/32"},
		{4999, code(4999), code(4999), true, "error 4999 of ip_set"},
	} {
		conn, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte { return [][]byte{nfnltest.Acknowledge(r, tt.errno, "", 0)} })
		s := &Sets{conn: conn, sets: []*set{testHosts}}
		for _, c := range []struct {
			got, want error
		}{
			{s.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever}), tt.ban},
			{s.Unban(t.Context(), p), tt.unban},
		} {
			failed, only := ban.Failed(c.got)
			if !errors.Is(c.got, c.want) || only != tt.entry || (len(failed) == 1) != tt.entry {
				t.Errorf("errno %d: %v; want %v", tt.errno, c.got, c.want)
			}
			if c.got != nil && !strings.Contains(c.got.Error(), tt.text) {
				t.Errorf("errno %d: %v; want %q in it", tt.errno, c.got, tt.text)
			}
		}
		_ = conn.Close()
	}
	for errno, want := range map[syscall.Errno]error{
		syscall.EINVAL: errors.ErrUnsupported, syscall.EPERM: fs.ErrPermission, syscall.Errno(codeFindType): errors.ErrUnsupported,
	} {
		if err := testHosts.explain("type", &nfnl.Error{Errno: errno}); !errors.Is(err, want) {
			t.Errorf("errno %d: %v; want %v", errno, err, want)
		}
	}
}
