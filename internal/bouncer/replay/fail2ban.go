package replay

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/jailer"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// WithLog makes a server with a fail2ban-server whose jail counts the lines of
// Hits, and bans with nftables.
func WithLog(t *testing.T) *Town {
	t.Helper()
	w := New(t, "")
	w.fail2ban("nftables")
	return w
}

const (
	// Jails are those of a Town with fail2ban: the one that is shipped bans for
	// ever, and the others for as many seconds as examples do.
	Jails = "connsleuth,connsleuth-270,connsleuth-600"
	// Hits is the log, of the jail that counts, in the server's directory.
	Hits = "hits.log"
	// jails has the 9th visitor in the ignoreip of all.
	jails = `[DEFAULT]
backend = polling
ignoreip = 10.0.9.0/24 2001:db8:109::/64
banaction = ACTIONS-multiport
banaction_allports = ACTIONS-allports
bantime = 600
[connsleuth]
enabled = true
logpath = DIR/bans.log
[connsleuth-270]
enabled = true
bantime = 270
filter = connsleuth
banaction = ACTIONS-allports
logpath = DIR/bans.log
[connsleuth-600]
enabled = true
filter = connsleuth
banaction = ACTIONS-allports
logpath = DIR/bans.log
[connsleuth-hits]
enabled = true
logpath = DIR/hits.log
`
)

// fail2ban starts a server in the host, with the files that are shipped and
// actions as they are installed: those of iptables or nftables.
func (w *Town) fail2ban(actions string) {
	w.Helper()
	lab.Tool(w, map[string]string{"iptables": "iptables", "nftables": "nft"}[actions])
	if _, err := os.Stat("/etc/fail2ban/action.d/" + actions + "-allports.conf"); err != nil {
		w.Skipf("reference tool: %v", err)
	}
	s, err := jailer.Start(&jailer.Config{
		Installed: true,
		Jails:     append(strings.Split(Jails, ","), "connsleuth-hits"),
		Start:     func(cmd *exec.Cmd) error { return w.Server.Do(cmd.Start) },
		Files:     map[string]string{"jail.local": strings.ReplaceAll(jails, "ACTIONS", actions), "bans.log": "", Hits: ""},
	})
	if errors.Is(err, exec.ErrNotFound) {
		w.Skipf("reference tool: %v", err)
	}
	w.ok(err)
	w.Jailer = s
	w.Cleanup(func() {
		if w.Failed() {
			log := s.Log()
			w.Logf("%s", log[max(0, len(log)-4000):])
		}
		w.ok(s.Stop())
	})
}

// Jailed waits until a jail has banned the sources.
func (w *Town) Jailed(jail string, sources ...string) {
	w.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		list, err := w.Jailer.Client(w.Context(), "get", jail, "banip")
		w.ok(err)
		banned := strings.Fields(list)
		missing := slices.DeleteFunc(slices.Clone(sources), func(s string) bool { return slices.Contains(banned, s) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("not banned: %v; but %v", missing, banned)
		}
	}
}
