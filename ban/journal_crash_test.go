package ban

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestJournalCut cuts the file of a history at every byte: what is read is what
// was in force after some of its calls, and no later one was acknowledged.
func TestJournalCut(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "bans")
	j := openJournal(t, path, new(Memory))
	size := func() int {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Size())
	}
	type moment struct {
		size   int
		active []Entry
	}
	history := []moment{{0, nil}}
	for i := range 8 {
		p := Host(netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 3)}))
		err := j.Ban(t.Context(), Entry{Prefix: p, Until: Forever, Reason: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		history = append(history, moment{size(), j.Entries()})
		if i%4 == 3 {
			if err := j.Unban(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			history = append(history, moment{size(), j.Entries()})
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(dir, "part")
	tails := []string{"", "\x00\x00\x00", `12345678 {"op":"ban"`}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(part, append(whole[:n:n], tails[n%len(tails)]...), 0o600); err != nil {
			t.Fatal(err)
		}
		var want []Entry
		for _, m := range history {
			if m.size <= n {
				want = m.active
			}
		}
		k := openJournal(t, part, new(Memory))
		if got := k.Entries(); !slices.Equal(got, want) || k.Damaged() != 0 {
			t.Fatalf("cut at %d: %v, %d damaged; want %v", n, got, k.Damaged(), want)
		}
		// What is written from now on is read again.
		if err := k.Ban(t.Context(), Entry{Prefix: prefix("198.51.100.1/32"), Until: Forever}); err != nil {
			t.Fatal(err)
		}
		k, _ = reopen(t, k)
		if again := k.Entries(); len(again) != len(want)+1 {
			t.Fatalf("cut at %d: after a ban %v, before %v", n, again, want)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalDamaged: a record that is spoiled is passed over and counted, and
// those after it are read.
func TestJournalDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans")
	j := openJournal(t, path, new(Memory))
	for i := range 3 {
		p := Host(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}))
		if err := j.Ban(t.Context(), Entry{Prefix: p, Until: Forever}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, path, new(Memory))
	if len(j.Entries()) != 2 || j.Damaged() != 1 {
		t.Errorf("%v, %d damaged; want 2 and 1", j.Entries(), j.Damaged())
	}
}

// TestJournalUnwritable: a ban that cannot be written is in force, and the error
// says that it will not outlive a restart.
func TestJournalUnwritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans")
	m := new(Memory)
	j := openJournal(t, path, m)
	a := Entry{Prefix: prefix("203.0.113.1/32"), Until: Forever}
	if err := j.Ban(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	good := j.file
	j.file = readOnly
	b := Entry{Prefix: prefix("203.0.113.2/32"), Until: Forever}
	if err := j.Ban(t.Context(), b); err == nil || !strings.Contains(err.Error(), "will not outlive a restart") {
		t.Errorf("Ban: %v", err)
	}
	if _, ok := inForce(t, m)[b.Prefix]; !ok {
		t.Error("it is not in force")
	}
	j.file = good
	if err := errors.Join(readOnly.Close(), j.Ban(t.Context(), b)); err != nil {
		t.Fatal(err)
	}
	j, _ = reopen(t, j)
	if got := j.Entries(); len(got) != 2 || j.Damaged() != 0 {
		t.Errorf("%v, %d damaged", got, j.Damaged())
	}
}

const killEnv = "CONNSLEUTH_JOURNAL"

// TestJournalKilled kills a process that bans and unbans: all that it was told
// is done is in the file.
func TestJournalKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	if path := os.Getenv(killEnv); path != "" {
		banUntilKilled(path)
	}
	for range 2 {
		path := filepath.Join(t.TempDir(), "bans")
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestJournalKilled$")
		cmd.Env = append(os.Environ(), killEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := make(map[string]bool)
		s := bufio.NewScanner(out)
		for n := 0; s.Scan(); n++ {
			what, prefix, _ := strings.Cut(s.Text(), " ")
			want[prefix] = what == "banned"
			if n == 1500 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		if len(want) < 100 {
			t.Fatalf("the process told of %d", len(want))
		}
		j := openJournal(t, path, new(Memory))
		if j.Damaged() != 0 {
			t.Errorf("%d records are damaged", j.Damaged())
		}
		got := make(map[string]bool)
		for _, e := range j.Entries() {
			got[e.Prefix.String()] = true
		}
		wrong := 0 // the last call may have been made and not been told
		for p, banned := range want {
			if got[p] != banned {
				wrong++
				t.Logf("%s: banned %v, want %v", p, got[p], banned)
			}
		}
		if wrong > 1 {
			t.Errorf("%d of %d are not as acknowledged", wrong, len(want))
		}
	}
}

func banUntilKilled(path string) {
	j, err := OpenJournal(path, new(Memory))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx := context.Background()
	for i := range 1 << 20 {
		p := Host(netip.AddrFrom4([4]byte{203, 0, byte(i % 509 >> 8), byte(i % 509)}))
		what := "banned"
		if i%3 == 2 {
			what = "unbanned"
			err = j.Unban(ctx, p)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			err = j.Ban(ctx, Entry{Prefix: p, Until: Forever, Reason: fmt.Sprint(i)})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(what, p)
	}
	os.Exit(0)
}

func FuzzDecodeRecord(f *testing.F) {
	for _, e := range []Entry{
		{prefix("203.0.113.1/32"), Forever, "reason", "{}"},
		{prefix("2001:db8::/64"), At(time.Unix(1, 2)), "", ""},
	} {
		r := recordOf(e)
		b, err := r.append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			if r != (record{}) && r.Op == "" {
				t.Fatalf("%q: %v with %v", b, err, r)
			}
			return
		}
		if r.Op == opBan && r.entry().Check() != nil {
			t.Fatalf("%q is the ban %v", b, r.entry())
		}
	})
}
