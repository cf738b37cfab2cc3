package ban

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func openJournal(t testing.TB, path string, next Backend) *Journal {
	t.Helper()
	j, err := OpenJournal(path, next)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// reopen closes a journal and opens its file with an empty Memory: a machine
// that starts again.
func reopen(t testing.TB, j *Journal) (*Journal, *Memory) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	m := new(Memory)
	return openJournal(t, j.path, m), m
}

func inForce(t testing.TB, b Backend) map[netip.Prefix]Entry {
	t.Helper()
	got := make(map[netip.Prefix]Entry)
	for e, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Prefix] = e
	}
	return got
}

// TestJournalRestore: after a restart each ban is in force for the time that is
// left, with its reason and evidence, and what was lifted or is over is not.
func TestJournalRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans")
	j := openJournal(t, path, new(Memory))
	now := time.Now()
	keep := Entry{prefix("203.0.113.1/32"), For(now, time.Hour), "Conn Cnt: 684 is greater than limit:60", `{"a":"b"}`}
	forever := Entry{prefix("2001:db8:1::/64"), Forever, "line\nbreak \xff", ""}
	short := Entry{prefix("203.0.113.2/32"), For(now, 30*time.Millisecond), "", ""}
	lifted := Entry{prefix("203.0.113.3/32"), Forever, "", ""}
	changed := Entry{prefix("203.0.113.4/32"), Forever, "", ""}
	if err := j.Ban(t.Context(), keep, forever, short, lifted, changed); err != nil {
		t.Fatal(err)
	}
	changed.Until = For(now, 2*time.Hour)
	if err := errors.Join(j.Ban(t.Context(), changed), j.Unban(t.Context(), lifted.Prefix)); err != nil {
		t.Fatal(err)
	}
	for !short.Until.Over(time.Now()) {
		time.Sleep(5 * time.Millisecond)
	}
	j, m := reopen(t, j)
	if n := len(inForce(t, m)); n != 0 {
		t.Errorf("opening banned %d", n)
	}
	if err := j.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	forever.Reason = "line\nbreak \ufffd" // JSON is UTF-8
	want := map[netip.Prefix]Entry{keep.Prefix: keep, forever.Prefix: forever, changed.Prefix: changed}
	if got := inForce(t, j); !maps.Equal(got, want) {
		t.Errorf("in force %v, want %v", got, want)
	}
	if got := j.Entries(); len(got) != 3 || got[0] != keep || got[1] != changed || got[2] != forever {
		t.Errorf("Entries %v", got)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
}

// TestJournalGuard: what must not be banned any more is not restored, and is
// taken out of the file.
func TestJournalGuard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans")
	j := openJournal(t, path, new(Memory))
	a, b := Entry{Prefix: prefix("203.0.113.1/32"), Until: Forever}, Entry{Prefix: prefix("203.0.113.2/32"), Until: Forever}
	if err := j.Ban(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	gateway := func(context.Context) ([]Protected, error) { return []Protected{{a.Prefix, "gateway"}}, nil }
	kept := new(Memory) // as a kernel keeps it
	if err := kept.Ban(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, path, Guard{System: gateway}.Protect(kept))
	if err := j.Restore(t.Context()); !errors.Is(err, ErrGuarded) {
		t.Errorf("Restore: %v; want ErrGuarded", err)
	}
	if got := inForce(t, j); len(got) != 1 || got[b.Prefix] != b {
		t.Errorf("in force are %v", got)
	}
	j, _ = reopen(t, j)
	if got := j.Entries(); len(got) != 1 || got[0] != b {
		t.Errorf("the file has %v", got)
	}
}

// TestJournalRefused: what the backend refuses is not written.
func TestJournalRefused(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "bans"), &Memory{Max: 1})
	a, b := Entry{Prefix: prefix("203.0.113.1/32"), Until: Forever}, Entry{Prefix: prefix("203.0.113.2/32"), Until: Forever}
	if err := j.Ban(t.Context(), a, b); !errors.Is(err, ErrFull) {
		t.Errorf("Ban: %v; want ErrFull", err)
	}
	if err := j.Unban(t.Context(), b.Prefix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unban: %v; want fs.ErrNotExist", err)
	}
	j, _ = reopen(t, j)
	if got := j.Entries(); len(got) != 1 || got[0] != a {
		t.Errorf("the file has %v", got)
	}
}

func TestJournalLock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files are not locked")
	}
	path := filepath.Join(t.TempDir(), "bans")
	j := openJournal(t, path, new(Memory))
	if _, err := OpenJournal(path, new(Memory)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	for i := range 2500 { // compacted meanwhile
		if err := j.Ban(t.Context(), Entry{Prefix: prefix("203.0.113.1/32"), Until: For(time.Now(), time.Duration(i+3600)*time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenJournal(path, new(Memory)); err == nil {
		t.Error("opened twice after it was compacted")
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1200*200 {
		t.Errorf("2500 renewals of one ban take %d bytes, %v", info.Size(), err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	j, _ = reopen(t, j)
	if len(j.Entries()) != 1 {
		t.Errorf("compacted: %v", j.Entries())
	}
}

func TestJournalClosed(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "bans"), new(Memory))
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	e := Entry{Prefix: prefix("203.0.113.1/32"), Until: Forever}
	for name, err := range map[string]error{
		"Ban": j.Ban(t.Context(), e), "Unban": j.Unban(t.Context(), e.Prefix), "Restore": j.Restore(t.Context()),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v; want net.ErrClosed", name, err)
		}
	}
	if _, err := OpenJournal(filepath.Join(t.TempDir(), "no", "such", "directory"), new(Memory)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenJournal: %v; want fs.ErrNotExist", err)
	}
}

func BenchmarkJournalOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "bans")
	j := openJournal(b, path, new(Memory))
	entries := make([]Entry, 100_000)
	for i := range entries {
		p := Host(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		entries[i] = Entry{Prefix: p, Until: For(time.Now(), time.Hour), Reason: "Conn Cnt: 684 is greater than limit:60"}
	}
	if err := errors.Join(j.Ban(b.Context(), entries...), j.Close()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := openJournal(b, path, new(Memory)).Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(entries)), "ns/ban")
}
