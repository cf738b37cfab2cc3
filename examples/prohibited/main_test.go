package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// child is set for a process that is to be the program itself.
const child = "CONNSLEUTH_PROHIBITED"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		main()
		return
	}
	lab.Main(m)
}

const patience = 40 * time.Second

// program is the program at work in a host.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	end chan error

	mu       sync.Mutex
	out, err bytes.Buffer
}

// writer guards one of the program's buffers.
type writer struct {
	p *program
	b *bytes.Buffer
}

func (w writer) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.b.Write(b)
}

func start(t *testing.T, h *lab.Host, args ...string) *program {
	t.Helper()
	p := &program{t: t, end: make(chan error, 1)}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), child+"=1")
	p.cmd.Stdout, p.cmd.Stderr = writer{p, &p.out}, writer{p, &p.err}
	if err := h.Do(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() { p.end <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it may have ended
	return p
}

func (p *program) text() (out, err string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String(), p.err.String()
}

// waitFor waits until the program has written something.
func (p *program) waitFor(what string) {
	p.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if out, err := p.text(); strings.Contains(out+err, what) {
			return
		}
	}
	out, err := p.text()
	p.t.Fatalf("no %q in\n%s%s", what, out, err)
}

// wait waits for the end of the program.
func (p *program) wait() error {
	p.t.Helper()
	select {
	case err := <-p.end:
		return err
	case <-time.After(patience):
		p.t.Fatal("the program does not end")
		return nil
	}
}

// stop ends the program by a signal and wants it to succeed.
func (p *program) stop(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		_, text := p.text()
		p.t.Errorf("after %v: %v: %s", s, err, text)
	}
}

// hostState is all that the program could leave behind.
func hostState(t *testing.T, h *lab.Host) string {
	t.Helper()
	rules, err := h.Exec(t.Context(), "nft", "-s", "list", "ruleset")
	if errors.Is(err, exec.ErrNotFound) {
		rules, err = tables(t, h)
	}
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(string(rules))
	for _, name := range []string{
		"sys/net/netfilter/nf_conntrack_log_invalid", "sys/net/netfilter/nf_log/2", "sys/net/netfilter/nf_log/10",
		"net/netfilter/nf_log", "net/netfilter/nfnetlink_log",
	} {
		b, err := fs.ReadFile(h.FS(), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		text.WriteString(name + ": " + string(b))
	}
	return text.String()
}

// tables lists the tables without nft(8).
func tables(t *testing.T, h *lab.Host) (text []byte, err error) {
	t.Helper()
	conn, err := nft.Dial(h.NetNS())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // only asked
	set, err := conn.Ruleset(t.Context())
	if err == nil {
		for _, table := range set.Tables {
			text = fmt.Appendf(text, "table %v %s {\n", table.Family, table.Name)
		}
	}
	return text, err
}

func waitState(t *testing.T, h *lab.Host, want func(string) bool) {
	t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = hostState(t, h); want(got) {
			return
		}
	}
	t.Errorf("got\n%s", got)
}

// refusing is a host that refuses connections to port 1000, and one that tries.
func refusing(t *testing.T) (client, server *lab.Host) {
	t.Helper()
	client, server = lab.Two(t)
	err := server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{
			{CTState: nft.New, Proto: nft.TCP, DstPort: 1000, Verdict: nft.RejectAdminProhibited},
			{CTState: nft.New, Proto: nft.TCP, DstPort: 1001, Log: &nft.Log{Group: 50, Prefix: "new "}, Verdict: nft.RejectAdminProhibited},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func try(t *testing.T, client, server *lab.Host, from, to uint16) {
	t.Helper()
	c, err := client.Dial(t.Context(), "tcp", netip.AddrPortFrom(client.Addr4(), from), netip.AddrPortFrom(server.Addr4(), to), nil)
	if err == nil {
		_ = c.Close()
		t.Fatal("connected")
	}
}

// TestProhibited runs the program over refused connections, ends it in all ways
// there are, kill -9 among them, and looks for what it leaves behind.
func TestProhibited(t *testing.T) {
	t.Parallel()
	client, server := refusing(t)
	before := hostState(t, server)
	unchanged := func(now string) bool { return now == before }

	p := start(t, server)
	p.waitFor("watching")
	try(t, client, server, 4000, 1000)
	p.waitFor("no-service, certain: ")
	p.waitFor(" of inet filter input: tcp dport 1000 ")
	p.stop(os.Interrupt)
	if out, _ := p.text(); !strings.Contains(out, ":4000 > ") {
		t.Errorf("got %s", out)
	}
	waitState(t, server, unchanged)

	p = start(t, server)
	p.waitFor("watching")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.wait() // killed
	waitState(t, server, func(now string) bool {
		return strings.Contains(now, "connsleuth-restore") && !strings.Contains(now, "table inet connsleuth {")
	})

	p = start(t, server, "-json", "-top=3")
	p.waitFor("watching")
	second := start(t, server)
	if err := second.wait(); err == nil {
		t.Error("a second one may run")
	}
	second.waitFor("another Watch has installed its table: table inet connsleuth, of process ")
	try(t, client, server, 4001, 1000)
	p.waitFor("}\n")
	p.stop(syscall.SIGTERM)
	out, _ := p.text()
	var v struct{ Cause string }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil || v.Cause != string(reject.CauseNoService) {
		t.Errorf("%v: %s", err, out)
	}
	waitState(t, server, unchanged)
}

// With -group nothing is added; -top tells at the end, which -for brings.
func TestProhibitedGroup(t *testing.T) {
	t.Parallel()
	client, server := refusing(t)
	p := start(t, server, "-group=49,50", "-group", "51", "-for=3s", "-top=1")
	p.waitFor("watching")
	try(t, client, server, 4000, 1001)
	if err := p.wait(); err != nil {
		t.Error(err)
	}
	if out, _ := p.text(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "no-service") {
		t.Errorf("got %q", out)
	}
}

func TestProhibitedDryRun(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	for arg, want := range map[string]string{
		"-dry-run": "table inet connsleuth {\n", "-dry-run -group=5": "# nothing", "-h": "NFLOG group", "-group=x": "is no group",
	} {
		p := start(t, h, strings.Fields(arg)...)
		if err := p.wait(); (err != nil) != (arg == "-group=x") {
			t.Errorf("%s: %v", arg, err)
		}
		p.waitFor(want)
	}
}

// On a terminal the lines are written over.
func TestView(t *testing.T) {
	var b bytes.Buffer
	v := &view{out: &b, live: true, top: 2, soon: true} // only drawn here
	for n := range uint16(3) {
		for range n + 1 {
			v.keep(reject.Verdict{Cause: reject.CauseNoService, Flow: conntrack.Tuple{SrcPort: n}, Count: int(n) + 1})
		}
	}
	v.draw()
	v.end()
	parts := strings.Split(b.String(), "\x1b[J")
	if len(parts) != 3 || strings.Count(parts[2], "\n") != 2 || !strings.HasSuffix(parts[1], "\x1b[2A") || parts[0] != "" {
		t.Errorf("got %q", parts)
	}
	if first, _, _ := strings.Cut(parts[2], "\n"); !strings.Contains(first, "(3 times)") {
		t.Errorf("the first is %q", first)
	}
}
