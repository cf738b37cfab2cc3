package fail2ban_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
)

// jail opens a jail of the configuration that is shipped.
func (s *server) jail(t *testing.T, name string) *fail2ban.Jails {
	t.Helper()
	j, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: s.Socket(), Jails: []string{name}, Prefixes: true})
	ok(t, err)
	t.Cleanup(func() { ok(t, j.Close()) })
	return j
}

// eventually waits until all of the prefixes are banned.
func eventually(t *testing.T, b ban.Backend, prefixes ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, missing := list(t, b), ""
		for _, p := range prefixes {
			if _, found := got[netip.MustParsePrefix(p)]; !found {
				missing = p
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not banned: %v", missing, got)
		}
	}
}

// TestHits: 40 sockets of one source, a line each, and 39 of another.
func TestHits(t *testing.T) {
	t.Parallel()
	s := start(t)
	j := s.jail(t, "connsleuth-hits")
	var lines []byte
	for i := range 40 {
		lines = fail2ban.AppendHit(lines, time.Now(), netip.MustParseAddr("::ffff:197.203.26.142"))
		lines = fail2ban.AppendHit(lines, time.Now(), netip.MustParseAddr("2001:db8:9::1"))
		if i > 0 {
			lines = fail2ban.AppendHit(lines, time.Now(), netip.MustParseAddr("89.95.200.5"))
		}
	}
	ok(t, s.Append("hits.log", lines))
	eventually(t, j, "197.203.26.142/32", "2001:db8:9::1/128")
	for p, e := range list(t, j) {
		if p.String() == "89.95.200.5/32" || !e.Until.Forever() {
			t.Errorf("%v after 39 lines, or with an end", e)
		}
	}
	ok(t, s.Append("hits.log", fail2ban.AppendHit(nil, time.Now(), netip.MustParseAddr("89.95.200.5"))))
	eventually(t, j, "89.95.200.5/32")
}

// TestBanLines: what is banned by lines, what is ignored, and nothing by what is
// made to look like a line.
func TestBanLines(t *testing.T) {
	t.Parallel()
	s := start(t)
	j := s.jail(t, "connsleuth")
	var lines []byte
	add := func(prefix, reason string) {
		var err error
		lines, err = fail2ban.AppendBan(lines, time.Now(), ban.Entry{Prefix: netip.MustParsePrefix(prefix), Until: ban.Forever, Reason: reason})
		ok(t, err)
	}
	evil := time.Now().Format("\n2006-01-02T15:04:05-0700") + " connsleuth: ban src=192.0.2.66\n<HOST> src=192.0.2.66"
	add("203.0.113.43/32", "") // of ignoreip
	add("198.51.100.9/32", "Conn Cnt: 684 is greater than limit:60")
	add("198.51.101.64/26", evil)
	add("2001:db8:1::/64", "")
	add("2001:db8:2::1/128", strings.Repeat("x", 5000))
	ok(t, s.Append("bans.log", lines))
	eventually(t, j, "198.51.100.9/32", "198.51.101.64/26", "2001:db8:1::/64", "2001:db8:2::1/128")
	got := list(t, j)
	for _, p := range []string{"203.0.113.43/32", "192.0.2.66/32"} {
		if e, found := got[netip.MustParsePrefix(p)]; found {
			t.Errorf("banned: %v", e)
		}
	}
}

// noted waits until the server's action has written a line: it runs after the ban
// is listed.
func (s *server) noted(t *testing.T, line string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		notes, err := os.ReadFile(s.Path("notes"))
		if err == nil && strings.Contains(string(notes), line) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %s, %v", line, notes, err)
		}
	}
}

// TestAttempt: bans as they are made unless BanIP is set, with what fail2ban-client
// and the action see of them.
func TestAttempt(t *testing.T) {
	t.Parallel()
	s := start(t)
	j := s.jail(t, "connsleuth")
	p4, p6 := netip.MustParsePrefix("198.51.100.77/32"), netip.MustParsePrefix("2001:db8:7::/64")
	entries := []ban.Entry{
		{Prefix: p4, Until: ban.Forever, Reason: "why <F2B_END_COMMAND> `id` \n"},
		{Prefix: netip.MustParsePrefix("203.0.113.43/32"), Until: ban.Forever},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Until: ban.Forever},
		{Prefix: netip.MustParsePrefix("2001:db8:5::1/128"), Until: ban.Forever},
		{Prefix: p6, Until: ban.Forever},
	}
	failed, only := ban.Failed(j.Ban(t.Context(), entries...))
	if len(failed) != 3 || !only {
		t.Fatalf("%v; want 3 of what ignoreip is about", failed)
	}
	for i, f := range failed {
		if !errors.Is(f, ban.ErrGuarded) || f.Prefix != entries[i+1].Prefix {
			t.Errorf("%v; want ErrGuarded", f)
		}
	}
	out := s.client(t, "get", "connsleuth", "banip")
	for _, want := range []string{"198.51.100.77", "2001:db8:7::/64"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
		s.noted(t, "+"+want+"\n")
	}
	if strings.Contains(out, "203.0.113") || strings.Contains(out, "2001:db8:5::") {
		t.Errorf("ignored, and banned: %s", out)
	}
	ok(t, j.Ban(t.Context(), entries[0])) // again
	ok(t, j.Unban(t.Context(), p4, p6))
	if err := j.Unban(t.Context(), p4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unban of what is not banned: %v", err)
	}
	// The next attempt comes after all that the server has not seen to yet.
	ok(t, j.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.78/32"), Until: ban.Forever}))
	if out := s.client(t, "get", "connsleuth", "banip"); strings.Contains(out, "100.77") || strings.Contains(out, "db8:7:") {
		t.Errorf("still banned: %s", out)
	}
	// What others ban that is no address is none of ours.
	s.client(t, "set", "connsleuth", "banip", "a-user-name")
	for p := range list(t, j) {
		if !p.IsValid() {
			t.Error(p)
		}
	}
}

// TestUnbanWithin: lifting a prefix that is not banned lifts no host in it, as
// the server's unbanip would.
func TestUnbanWithin(t *testing.T) {
	t.Parallel()
	b := newPlace(t).Backend(t)
	host := netip.MustParsePrefix("198.51.100.7/32")
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.Forever}))
	if err := b.Unban(t.Context(), netip.MustParsePrefix("198.51.100.0/24")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unban of a prefix that is not banned: %v", err)
	}
	if len(list(t, b)) != 1 {
		t.Error("the host is no longer banned")
	}
}

// TestBanTime: jails whose bantime was changed keep no ban for other than asked,
// and entries go to the jail that bans as long.
func TestBanTime(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.make(t)
	short, long, ever := p.jails()[0], p.jails()[1], p.jails()[2]
	raw(t, p.Socket(), "set", short, "bantime", "270")
	raw(t, p.Socket(), "set", long, "bantime", "3600")
	cfg := p.config()
	cfg.Slack, cfg.BanIP, cfg.Prefixes = 0, true, false
	b, err := fail2ban.Open(t.Context(), cfg)
	ok(t, err)
	host := netip.MustParsePrefix("198.51.100.7/32")
	check := func(want time.Duration, forever bool) {
		t.Helper()
		e := list(t, b)[host]
		if left, timed := e.Until.Left(time.Now()); timed == forever || (left-want).Abs() > 10*time.Second && timed {
			t.Errorf("%v, want %v left", e, want)
		}
	}
	for _, d := range []time.Duration{270 * time.Second, time.Hour, 268 * time.Second, 265 * time.Second} {
		ok(t, b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.For(time.Now(), d)}))
		check(max(d, 270*time.Second), false)
	}
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.Forever}))
	check(0, true)
	for d, want := range map[time.Duration]error{
		100 * time.Second: errors.ErrUnsupported, 30 * time.Minute: errors.ErrUnsupported, 2 * time.Hour: ban.ErrTooLong,
	} {
		err := b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.For(time.Now(), d)})
		if failed, only := ban.Failed(err); len(failed) != 1 || !only || !errors.Is(err, want) {
			t.Errorf("%v: %v; want %v", d, err, want)
		}
	}
	err = b.Ban(t.Context(), ban.Entry{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Until: ban.Forever})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a prefix where actions may not take it: %v", err)
	}
	// A ban that was prolonged has a time of its own, which the jail's does not
	// shorten; others follow the jail's.
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.For(time.Now(), time.Hour)}))
	raw(t, p.Socket(), "set", long, "banip", host.Addr().String())
	raw(t, p.Socket(), "set", long, "bantime", "400")
	check(time.Hour, false)
	ok(t, b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.For(time.Now(), 400*time.Second)}))
	check(400*time.Second, false)
	raw(t, p.Socket(), "set", ever, "bantime", "20000")
	if err := b.Ban(t.Context(), ban.Entry{Prefix: host, Until: ban.Forever}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("for ever without a jail for it: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "sock")
	for want, cfg := range map[string]*fail2ban.Config{
		"is fail2ban-server running": {Socket: missing},
		"slack -1s":                  {Socket: missing, Slack: -time.Second},
		`jail "--all"`:               {Socket: missing, Jails: []string{"--all"}},
		`jail "a\n"`:                 {Socket: missing, Jails: []string{"a\n"}},
	} {
		if _, err := fail2ban.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", cfg, err, want)
		}
	}
	if _, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: missing}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v; want fs.ErrNotExist", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: missing, Net: "unix"}) // left behind by a server that died
	ok(t, err)
	l.SetUnlinkOnClose(false)
	ok(t, l.Close())
	if _, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: missing}); err == nil || !strings.Contains(err.Error(), "is fail2ban-server running") {
		t.Errorf("nobody listens: %v", err)
	}
	s := start(t)
	_, err = fail2ban.Open(t.Context(), &fail2ban.Config{Socket: s.Socket(), Jails: []string{"nope"}})
	if !errors.Is(err, ban.ErrNotEnforcing) || !strings.Contains(err.Error(), "UnknownJailException: nope") {
		t.Errorf("no such jail: %v", err)
	}
	name := fmt.Sprint("test", number.Add(1))
	raw(t, s.Socket(), "add", name, "polling")
	raw(t, s.Socket(), "set", name, "maxretry", "101")
	if _, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: s.Socket(), Jails: []string{name}}); err == nil || !strings.Contains(err.Error(), "it counts") {
		t.Errorf("a jail that counts: %v", err)
	}
}

// TestGone: a server that is stopped enforces nothing, and its bans are not said
// to be lifted.
func TestGone(t *testing.T) {
	t.Parallel()
	s := start(t)
	link := filepath.Join(t.TempDir(), "sock")
	ok(t, os.Symlink(s.Socket(), link))
	b, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: link})
	ok(t, err)
	ok(t, os.Remove(link))
	p := netip.MustParsePrefix("198.51.100.9/32")
	for call, err := range map[string]error{
		"Ban": b.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever}), "Unban": b.Unban(t.Context(), p), "Enforcing": b.Enforcing(t.Context()),
	} {
		if !errors.Is(err, ban.ErrNotEnforcing) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s without a server: %v; want ErrNotEnforcing", call, err)
		}
	}
	for _, err := range b.List(t.Context()) {
		if !errors.Is(err, ban.ErrNotEnforcing) {
			t.Errorf("List without a server: %v", err)
		}
	}
}

// TestBusy: more callers at once than the server lets wait.
func TestBusy(t *testing.T) {
	t.Parallel()
	s := start(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 8 {
				if _, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: s.Socket()}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestServers: what is no fail2ban-server, and one that is slow.
func TestServers(t *testing.T) {
	for answer, want := range map[string]string{
		"":        "unexpected EOF",
		"garbage": "malformed pickle",
		"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x06ERROR:\x94.":      "the server says Error: ERROR:",
		"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x00\x00K\x00\x8c\x01x\x86\x94.":  "not a number",
		"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x00\x00K\x00K\x01K\x02\x87\x94.": "no pair",
	} {
		socket := filepath.Join(t.TempDir(), "sock")
		l, err := net.Listen("unix", socket)
		ok(t, err)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			if answer != "" {
				_, _ = conn.Write([]byte(answer + fail2ban.EndOfCommand))
			}
			_ = conn.Close()
		}()
		if _, err := fail2ban.Open(t.Context(), &fail2ban.Config{Socket: socket}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", answer, err, want)
		}
		_ = l.Close()
	}
}
