package fail2ban_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
	"github.com/connsleuth/connsleuth/internal/jailer"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is a fail2ban-server of the tests' own, which all of them share: it
// takes a second to start.
type server struct {
	*jailer.Server
	err error
}

var (
	shared server
	once   sync.Once
)

func TestMain(m *testing.M) {
	m.Run()
	if shared.Server != nil {
		_ = shared.Stop() // nothing is owed to it any more
	}
}

// start returns the server, or skips the test where fail2ban is not installed.
func start(t *testing.T) *server {
	t.Helper()
	once.Do(func() { shared.Server, shared.err = jailer.Start(config()) })
	if errors.Is(shared.err, exec.ErrNotFound) {
		t.Skip("reference tool: ", shared.err)
	}
	ok(t, shared.err)
	return &shared
}

func config() *jailer.Config {
	return &jailer.Config{
		Jails: []string{"connsleuth", "connsleuth-hits"},
		Files: map[string]string{
			"jail.conf":          "[DEFAULT]\nbackend = polling\nbanaction_allports = note\nbanaction = note\naction = %(banaction)s\n",
			"action.d/note.conf": "[Definition]\nactionban = printf '+%%s\\n' '<ip>' >> DIR/notes\nactionunban = printf '-%%s\\n' '<ip>' >> DIR/notes\n",
			"jail.local": "[connsleuth]\nenabled = true\nlogpath = DIR/bans.log\nignoreip = 203.0.113.43 2001:db8:5::/64\n" +
				"[connsleuth-hits]\nenabled = true\nlogpath = DIR/hits.log\n",
			"bans.log": "", "hits.log": "", "notes": "",
		},
	}
}

// client runs fail2ban-client.
func (s *server) client(t *testing.T, words ...string) string {
	t.Helper()
	out, err := s.Client(t.Context(), words...)
	ok(t, err)
	return out
}

// number counts the jails that tests made.
var number atomic.Int64

// place is three jails: for 4 s, for 50 years and for ever.
type place struct {
	*server
	name string
	made bool
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return &place{server: start(t), name: fmt.Sprint("test", number.Add(1))}
}

func (p *place) jails() []string { return []string{p.name + "s", p.name + "l", p.name + "e"} }

func (p *place) Backend(t *testing.T) ban.Backend {
	t.Helper()
	if !p.made {
		p.make(t)
	}
	b, err := fail2ban.Open(t.Context(), p.config())
	ok(t, err)
	return b
}

func (p *place) config() *fail2ban.Config {
	return &fail2ban.Config{Socket: p.Socket(), Jails: p.jails(), BanIP: true, Prefixes: true, Slack: 100 * 365 * 24 * time.Hour}
}

func (p *place) make(t *testing.T) {
	t.Helper()
	p.made = true
	for i, seconds := range []string{"4", "1576800000", "-1"} {
		name := p.jails()[i]
		raw(t, p.Socket(), "add", name, "polling")
		raw(t, p.Socket(), "set", name, "bantime", seconds)
		raw(t, p.Socket(), "set", name, "maxretry", "1")
		raw(t, p.Socket(), "start", name)
	}
}

// unmake stops the jails. Those of other tests stay as long as the server: it
// does nothing else for the second that it takes to stop one.
func (p *place) unmake(t *testing.T) {
	t.Helper()
	p.made = false
	for _, name := range p.jails() {
		raw(t, p.Socket(), "stop", name)
	}
}

func (*place) Small(*testing.T, int) ban.Backend { return nil }

func (p *place) Wipe(t *testing.T) {
	t.Helper()
	for _, name := range p.jails() {
		raw(t, p.Socket(), "set", name, "unbanip", "0.0.0.0/0", "::/0")
	}
}

func (p *place) Remove(t *testing.T) { p.unmake(t) }

// raw sends a command, faster than fail2ban-client does.
func raw(t *testing.T, socket string, words ...string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	for deadline := time.Now().Add(20 * time.Second); errors.Is(err, syscall.EAGAIN) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // its queue is full
		conn, err = net.Dial("unix", socket)
	}
	ok(t, err)
	defer conn.Close() //nolint:errcheck // nothing is owed
	ok(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Write(append(fail2ban.AppendRequest(nil, words), fail2ban.EndOfCommand...))
	ok(t, err)
	answer := make([]byte, 0, 4096)
	for !strings.HasSuffix(string(answer), fail2ban.EndOfCommand) {
		n, err := conn.Read(answer[len(answer):cap(answer)])
		ok(t, err)
		answer = answer[:len(answer)+n]
	}
}

func TestSuite(t *testing.T) {
	start(t)
	bantest.Run(t, bantest.Suite{
		Open:       func(t *testing.T) bantest.Place { return newPlace(t) },
		Resolution: time.Second,
		Many:       600,
		No:         bantest.NoReason | bantest.NoEnd,
	})
}

func list(t *testing.T, b ban.Backend) map[netip.Prefix]ban.Entry {
	t.Helper()
	got := make(map[netip.Prefix]ban.Entry)
	for e, err := range b.List(t.Context()) {
		ok(t, err)
		got[e.Prefix] = e
	}
	return got
}
