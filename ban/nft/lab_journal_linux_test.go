package nft_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
)

const journalEnv = "CONNSLEUTH_NFT_JOURNAL"

// TestJournalKilled kills a process that bans and unbans with a journal, in the
// midst of it. Somebody deletes the table, or all that there is. The next process
// brings back what was acknowledged, each for the time that is left.
func TestJournalKilled(t *testing.T) {
	if path := os.Getenv(journalEnv); path != "" {
		fmt.Println(banUntilKilled(path))
		os.Exit(1)
	}
	for name, lose := range map[string]func(*testing.T, *lab.Host){
		"nothing lost": func(*testing.T, *lab.Host) {},
		"deleted":      func(t *testing.T, h *lab.Host) { place{host: h}.Remove(t) },
		"flushed":      func(t *testing.T, h *lab.Host) { nftTool(t, h, "flush", "ruleset") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := lab.New(t).MustHost(t, "host")
			path := filepath.Join(t.TempDir(), "bans")
			told := killedAfter(t, h, path, 300)
			lose(t, h)
			for end := time.Now().Add(shortest); time.Now().Before(end); {
				time.Sleep(time.Until(end)) // until the short ones are over
			}
			restored(t, h, path, told)
		})
	}
}

// shortest is the time of bans that are over when they would be restored.
const shortest = 1500 * time.Millisecond

// prefixOf are hosts and, for IPv6, networks.
func prefixOf(i int) netip.Prefix {
	b := byte(i % 101)
	if i%2 == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, b}), 32)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: b}), 64)
}

// banUntilKilled bans for an hour, for ever and for a moment, and lifts bans, one
// after the other, and tells what is done.
func banUntilKilled(path string) error {
	ctx := context.Background()
	b, err := nft.Open(ctx, nil)
	if err != nil {
		return err
	}
	j, err := ban.OpenJournal(path, b)
	if err != nil {
		return err
	}
	for i := range 1 << 20 {
		p := prefixOf(i)
		if i%7 == 6 {
			if err := j.Unban(ctx, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			fmt.Println(p, "lifted")
			continue
		}
		until := []ban.Until{ban.For(time.Now(), time.Hour), ban.Forever, ban.For(time.Now(), shortest)}[i%3]
		if err := j.Ban(ctx, ban.Entry{Prefix: p, Until: until, Reason: "number " + strconv.Itoa(i)}); err != nil {
			return err
		}
		end := "forever"
		if t, timed := until.Time(); timed {
			end = t.Format(time.RFC3339Nano)
		}
		fmt.Println(p, end)
	}
	return errors.New("not killed")
}

// killedAfter has a process ban in the host, kills it, and returns what it told of
// each prefix last.
func killedAfter(t *testing.T, h *lab.Host, path string, calls int) map[netip.Prefix]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestJournalKilled$")
	cmd.Env = append(os.Environ(), journalEnv+"="+path)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, h.Do(cmd.Start))
	told := make(map[netip.Prefix]string)
	n := 0
	for s := bufio.NewScanner(out); s.Scan(); n++ {
		prefix, what, _ := strings.Cut(s.Text(), " ")
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			t.Fatalf("it says %q", s.Text())
		}
		if told[p] = what; n == calls {
			ok(t, cmd.Process.Kill())
		}
	}
	_ = cmd.Wait() // killed
	if n < calls {
		t.Fatalf("it told of %d calls", n)
	}
	return told
}

// restored restores, with one that is protected since, and compares what is in
// force, read back, with what was told. The last call may have been made and not
// been told.
func restored(t *testing.T, h *lab.Host, path string, told map[netip.Prefix]string) {
	t.Helper()
	var guarded netip.Prefix
	for p, what := range told {
		if what == "forever" {
			guarded = p
		}
	}
	j, err := ban.OpenJournal(path, ban.Guard{Allow: []netip.Prefix{guarded}}.Protect(open(t, h, nft.Config{})))
	ok(t, err)
	defer j.Close() //nolint:errcheck // read only
	if j.Damaged() != 0 {
		t.Errorf("%d records are damaged", j.Damaged())
	}
	began := time.Now()
	err = j.Restore(t.Context())
	if failed, only := ban.Failed(err); !only || len(failed) != 1 || failed[0].Prefix != guarded || !errors.Is(err, ban.ErrGuarded) {
		t.Errorf("Restore: %v; want %v to be refused", err, guarded)
	}
	ok(t, j.Enforcing(t.Context()))
	took := time.Since(began)
	want := make(map[netip.Prefix]string)
	for p, what := range told {
		end, err := time.Parse(time.RFC3339Nano, what)
		if what == "forever" && p != guarded || err == nil && time.Until(end) > time.Minute {
			want[p] = what
		}
	}
	if len(want) < 20 {
		t.Fatalf("only %d bans are to be restored: %v", len(want), told)
	}
	got := inForce(t, j)
	if _, banned := got[guarded]; banned {
		t.Errorf("%v is in force and protected", guarded)
	}
	wrong := 0
	for p := range told {
		if !isAs(got[p], want[p], 50*time.Millisecond+took) {
			wrong++
			t.Logf("%v: in force until %v, want %q", p, got[p], want[p])
		}
	}
	maps.DeleteFunc(got, func(p netip.Prefix, _ ban.Until) bool { return told[p] != "" })
	if wrong+len(got) > 1 {
		t.Errorf("%d are not as acknowledged, and %v are in force besides", wrong, got)
	}
}

func inForce(t *testing.T, b ban.Backend) map[netip.Prefix]ban.Until {
	t.Helper()
	got := make(map[netip.Prefix]ban.Until)
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		if !strings.HasPrefix(e.Reason, "number ") {
			t.Errorf("%v without its reason", e)
		}
		got[e.Prefix] = e.Until
	}
	return got
}

// isAs compares the end of a ban that was read with what was told of it; neither
// is there if it is zero.
func isAs(got ban.Until, want string, slack time.Duration) bool {
	end, err := time.Parse(time.RFC3339Nano, want)
	if err != nil {
		return got.Forever() == (want == "forever") && (got == ban.Until{}) == (want == "")
	}
	at, timed := got.Time()
	return timed && at.Sub(end).Abs() <= slack
}
