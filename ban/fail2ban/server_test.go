package fail2ban_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/bantest"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
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
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}
	out    strings.Builder
	reason string // why there is none
	err    error
}

var (
	shared server
	once   sync.Once
)

func TestMain(m *testing.M) {
	m.Run()
	shared.stop()
}

// start returns the server, or skips the test where fail2ban is not installed.
func start(t *testing.T) *server {
	t.Helper()
	once.Do(shared.start)
	if shared.reason != "" {
		t.Skip(shared.reason)
	}
	ok(t, shared.err)
	return &shared
}

func (s *server) start() {
	path, err := exec.LookPath("fail2ban-server")
	if err != nil {
		s.reason = "reference tool: " + err.Error()
		return
	}
	if s.dir, s.err = os.MkdirTemp("", ""); s.err != nil {
		return
	}
	if s.err = s.configure(); s.err != nil {
		return
	}
	s.cmd = exec.Command(path, "-c", s.dir, "-s", s.socket(), "-p", filepath.Join(s.dir, "pid"), "-f", "start")
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if s.err = s.cmd.Start(); s.err != nil {
		return
	}
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	s.err = s.wait()
}

// wait until the jails of the configuration are there.
func (s *server) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		j, err := fail2ban.Open(ctx, &fail2ban.Config{Socket: s.socket(), Jails: []string{"connsleuth", "connsleuth-hits"}})
		if err == nil {
			return j.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fail2ban-server does not start: %w", err)
		case <-s.ended:
			return fmt.Errorf("fail2ban-server ends: %s", s.out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// configure writes the configuration: the files shipped, as they are, and what
// an administrator sets beside them.
func (s *server) configure() error {
	if err := os.CopyFS(s.dir, fail2ban.Files()); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"fail2ban.conf":      "[Definition]\nloglevel = INFO\nlogtarget = " + s.path("log") + "\nsyslogsocket = auto\ndbfile = None\nallowipv6 = auto\n",
		"jail.conf":          "[DEFAULT]\nbackend = polling\nbanaction_allports = note\nbanaction = note\naction = %(banaction)s\n",
		"action.d/note.conf": "[Definition]\nactionban = printf '+%%s\\n' '<ip>' >> " + s.path("notes") + "\nactionunban = printf '-%%s\\n' '<ip>' >> " + s.path("notes") + "\n",
		"jail.local": "[connsleuth]\nenabled = true\nlogpath = " + s.path("bans.log") + "\nignoreip = 203.0.113.43 2001:db8:5::/64\n" +
			"[connsleuth-hits]\nenabled = true\nlogpath = " + s.path("hits.log") + "\n",
		"bans.log": "", "hits.log": "", "notes": "",
	} {
		file = s.path(file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) path(file string) string { return filepath.Join(s.dir, file) }
func (s *server) socket() string          { return s.path("sock") }

func (s *server) stop() {
	if s.cmd != nil && s.ended != nil {
		_ = s.cmd.Process.Signal(os.Interrupt)
		select {
		case <-s.ended:
		case <-time.After(10 * time.Second):
			_ = s.cmd.Process.Kill()
		}
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// client runs fail2ban-client, as an administrator does.
func (s *server) client(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "fail2ban-client", append([]string{"-c", s.dir, "-s", s.socket()}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-client %q: %v: %s", words, err, out)
	}
	return string(out)
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
	return &fail2ban.Config{Socket: p.socket(), Jails: p.jails(), BanIP: true, Prefixes: true, Slack: 100 * 365 * 24 * time.Hour}
}

func (p *place) make(t *testing.T) {
	t.Helper()
	p.made = true
	for i, seconds := range []string{"4", "1576800000", "-1"} {
		name := p.jails()[i]
		raw(t, p.socket(), "add", name, "polling")
		raw(t, p.socket(), "set", name, "bantime", seconds)
		raw(t, p.socket(), "set", name, "maxretry", "1")
		raw(t, p.socket(), "start", name)
	}
}

// unmake stops the jails. Those of other tests stay as long as the server: it
// does nothing else for the second that it takes to stop one.
func (p *place) unmake(t *testing.T) {
	t.Helper()
	p.made = false
	for _, name := range p.jails() {
		raw(t, p.socket(), "stop", name)
	}
}

func (*place) Small(*testing.T, int) ban.Backend { return nil }

func (p *place) Wipe(t *testing.T) {
	t.Helper()
	for _, name := range p.jails() {
		raw(t, p.socket(), "set", name, "unbanip", "0.0.0.0/0", "::/0")
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
