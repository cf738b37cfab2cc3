package bouncer

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/lab"
)

var (
	bad  = netip.MustParsePrefix("203.0.113.9/32")
	good = netip.MustParsePrefix("203.0.113.43/32")
	net6 = netip.MustParsePrefix("2001:db8:9::/64")
)

// open opens a Bouncer in a host, with memory by default, and returns what it tells.
func open(t *testing.T, h *lab.Host, flags Flags) (*Bouncer, *strings.Builder, error) {
	t.Helper()
	var (
		w strings.Builder
		b *Bouncer
	)
	flags.Backend = cmp.Or(flags.Backend, "memory")
	err := h.Do(func() (err error) {
		b, err = Open(t.Context(), flags, &w)
		return err
	})
	return b, &w, err
}

func mustOpen(t *testing.T, h *lab.Host, flags Flags) (*Bouncer, *strings.Builder) {
	t.Helper()
	b, w, err := open(t, h, flags)
	if err != nil {
		t.Fatal(err)
	}
	return b, w
}

// TestJournal: what was banned is banned again, but for those who are allowed
// since; a dry run does not look at the file.
func TestJournal(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	flags := Flags{Act: Act{Apply: true}, Journal: filepath.Join(t.TempDir(), "journal")}
	b, w := mustOpen(t, h, flags)
	entries := []ban.Entry{
		{Prefix: bad, Until: ban.Forever, Reason: "bad"}, {Prefix: good, Until: ban.For(time.Now(), time.Hour)},
		{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Until: ban.Forever, Reason: "own"},
	}
	refused, err := b.Ban(t.Context(), entries...)
	if want := []netip.Prefix{entries[2].Prefix}; err != nil || !slices.Equal(refused, want) {
		t.Errorf("refused %v, %v; want %v", refused, err, want)
	}
	for _, want := range []string{"banned " + bad.String() + " until forever: bad\n", "banned " + good.String(), "not banned: 127.0.0.1/32: protected: ", "cut ["} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("no %q in %s", want, w)
		}
	}
	if _, _, err := open(t, h, flags); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("a journal of two: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}

	dry := flags
	dry.Apply = false
	b, w = mustOpen(t, h, dry)
	if err := b.Close(); err != nil || w.Len() > 0 {
		t.Errorf("a dry run tells %q, %v", w, err)
	}

	file, err := os.OpenFile(flags.Journal, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("spoilt\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	flags.Allow = Prefixes{good}
	b, w = mustOpen(t, h, flags)
	for _, want := range []string{"note: the journal is damaged: ", "1 records", "restored " + bad.String() + " until forever: bad\n", "not banned: " + good.String() + ": protected: "} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("no %q in %s", want, w)
		}
	}
	jail := ban.Jail{MaxRetry: 1}
	if err := b.Adopt(t.Context(), time.Now(), &jail); err != nil {
		t.Error(err)
	}
	if until, ok := jail.Banned(time.Now(), bad.Addr()); !ok || !until.Forever() {
		t.Errorf("adopted %v, %v", until, ok)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	flags.Allow = nil
	b, w = mustOpen(t, h, flags)
	if err := b.Close(); err != nil || strings.Contains(w.String(), good.String()) {
		t.Errorf("after it was refused: %q, %v", w, err)
	}
}

// TestDryRun tells what it would do, and refuses what it would.
func TestDryRun(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b, w := mustOpen(t, h, Flags{Allow: Prefixes{netip.MustParsePrefix("2001:db8:9::43/128")}})
	defer b.Close()
	if _, err := b.Ban(t.Context()); err != nil || w.Len() > 0 {
		t.Errorf("of none: %q, %v", w, err)
	}
	refused, err := b.Ban(t.Context(), ban.Entry{Prefix: bad, Until: ban.Forever}, ban.Entry{Prefix: net6, Until: ban.Forever})
	if err != nil || !slices.Equal(refused, []netip.Prefix{net6}) {
		t.Errorf("refused %v: %v", refused, err)
	}
	want := "would ban 203.0.113.9/32 until forever; it would cut 0 sockets, 0 flows, 0 bytes, services none; would go on: 0 sockets and 0 flows of this host's own, 0 flows forwarded\n" +
		"not banned: 2001:db8:9::/64: protected: it contains 2001:db8:9::43/128 (allowed) ()\n"
	if w.String() != want {
		t.Errorf("told %q", w)
	}
}

// TestBroken: a ban of which nobody knows the outcome is an error, and nothing is
// told to be banned.
func TestBroken(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b, w := mustOpen(t, h, Flags{Act: Act{Apply: true}})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ban(t.Context(), ban.Entry{Prefix: bad, Until: ban.Forever}); err == nil || w.Len() > 0 {
		t.Errorf("told %q: %v", w, err)
	}
	if _, _, err := open(t, h, Flags{BanTime: -1}); status(err) != 2 {
		t.Errorf("a negative time: %v", err)
	}
}

// TestBackends opens each by its flag, with the name that -set gives it. There is
// no such jail, whether there is a server or not.
func TestBackends(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	for _, name := range Backends() {
		flags := Flags{Act: Act{Apply: true}, Backend: name, Set: "no_such_jail"}
		b, w, err := open(t, h, flags)
		if name == "fail2ban" {
			if err == nil || !strings.Contains(err.Error(), "fail2ban") {
				t.Errorf("fail2ban: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := b.Ban(t.Context(), ban.Entry{Prefix: bad, Until: ban.Forever}); err != nil {
			t.Error(name, err)
		}
		if err := b.Close(); err != nil {
			t.Error(name, err)
		}
		again, _ := mustOpen(t, h, flags)
		var jail ban.Jail
		if err := again.Adopt(t.Context(), time.Now(), &jail); err != nil {
			t.Error(name, err)
		}
		if _, ok := jail.Banned(time.Now(), bad.Addr()); ok != (name != "memory") {
			t.Errorf("%s: the ban outlives Close: %v", name, ok)
		}
		// Only an ipset has no rules of its own.
		if got := strings.Contains(w.String(), "note: bans have no effect: ipset: "); got != (name == "ipset") {
			t.Errorf("%s told %q", name, w)
		}
		if err := again.Close(); err != nil {
			t.Error(name, err)
		}
	}
}
