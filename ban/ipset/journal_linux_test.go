package ipset_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
)

// TestDestroyed: somebody flushes the rules and destroys the sets, and a program
// that starts makes them anew from its journal, as ipset(8) lists them: in both
// families, each ban for the time that is left.
func TestDestroyed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "bans")
	start := func(g ban.Guard) *ban.Journal {
		j, err := ban.OpenJournal(path, g.Protect(open(t, h, ipset.Config{Name: "banned"})))
		ok(t, err)
		return j
	}
	prefix := netip.MustParsePrefix
	short, now := ban.For(time.Now(), time.Second), time.Now()
	protected := prefix("198.51.100.12/32")
	j := start(ban.Guard{})
	ok(t, j.Ban(t.Context(),
		ban.Entry{Prefix: prefix("198.51.100.9/32"), Until: ban.For(now, 270*time.Second), Reason: "Conn Cnt: 684 is greater than limit:60"},
		ban.Entry{Prefix: prefix("198.51.100.10/32"), Until: ban.Forever},
		ban.Entry{Prefix: prefix("198.51.100.11/32"), Until: short},
		ban.Entry{Prefix: protected, Until: ban.Forever},
		ban.Entry{Prefix: prefix("2001:db8:7::/64"), Until: ban.For(now, time.Hour)},
		ban.Entry{Prefix: prefix("2001:db8:8::/64"), Until: ban.Forever}))
	ok(t, j.Close())

	run(t, h, "ipset destroy")
	if text := run(t, h, "ipset list"); text != "" {
		t.Fatal(text)
	}
	for end := now.Add(2 * time.Second); time.Now().Before(end); {
		time.Sleep(time.Until(end)) // the ends are then two seconds nearer
	}
	j = start(ban.Guard{Allow: []netip.Prefix{protected}})
	err := j.Restore(t.Context())
	if failed, only := ban.Failed(err); !only || len(failed) != 1 || failed[0].Prefix != protected || !errors.Is(err, ban.ErrGuarded) {
		t.Errorf("Restore: %v; want %v to be refused", err, protected)
	}
	ok(t, j.Close())
	text := run(t, h, "ipset list")
	for _, want := range []string{
		`(?m)^198\.51\.100\.9 timeout 2(6[0-8]|[0-5]\d) comment "Conn Cnt: 684 is greater than limit:60"$`, `(?m)^198\.51\.100\.10 timeout 0 *$`,
		`(?m)^2001:db8:7::/64 timeout 3(59[0-8]|5[0-8]\d) *$`, `(?m)^2001:db8:8::/64 timeout 0 *$`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if regexp.MustCompile(`100\.1[12]\b`).MatchString(text) {
		t.Errorf("one that is over, or protected, is restored:\n%s", text)
	}
}
