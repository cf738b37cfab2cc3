package replay

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// child is set for a process that is to be the program itself.
const child = "CONNSLEUTH_REPLAY"

// Main is for TestMain: in a process that was made by Start it runs the program.
func Main(m *testing.M, program func()) {
	if os.Getenv(child) != "" {
		program()
		return
	}
	lab.Main(m)
}

// Patience is how long anything is waited for.
const Patience = 20 * time.Second

// Program is the example at work in a host.
type Program struct {
	t   *testing.T
	cmd *exec.Cmd
	end chan struct{}
	err error // once end is closed

	mu       sync.Mutex
	out, log bytes.Buffer
}

// Line is what an example tells with -json.
type Line struct {
	Time                                                       time.Time
	Action, Prefix, Until, Reason, Note, Error, Subject, Cause string
	Evidence, Preview                                          json.RawMessage
	Prefixes, Fix                                              []string
	Cut                                                        struct{ Done bool }
}

// writer guards one of the program's buffers.
type writer struct {
	p *Program
	b *bytes.Buffer
}

func (w writer) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.b.Write(b)
}

// Start starts the example in a host. It is killed when the test ends.
func Start(t *testing.T, h *lab.Host, args ...string) *Program {
	t.Helper()
	return start(t, h, nil, args)
}

func start(t *testing.T, h *lab.Host, attr *syscall.SysProcAttr, args []string) *Program {
	t.Helper()
	p := &Program{t: t, end: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), child+"=1")
	p.cmd.Stdout, p.cmd.Stderr = writer{p, &p.out}, writer{p, &p.log}
	p.cmd.SysProcAttr = attr
	if err := h.Do(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.end) }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.end }) // it may have ended
	return p
}

// Text returns what the program has written to standard output and to standard
// error so far.
func (p *Program) Text() (out, log string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String(), p.log.String()
}

// Lines returns what it told with -json so far.
func (p *Program) Lines() []Line {
	p.t.Helper()
	out, _ := p.Text()
	var lines []Line
	for text := range strings.Lines(out) {
		if !strings.HasSuffix(text, "\n") {
			break // being written
		}
		var l Line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			p.t.Fatalf("%v in %q", err, text)
		}
		lines = append(lines, l)
	}
	return lines
}

// Find returns the first line about a prefix with an action.
func (p *Program) Find(action, prefix string) (Line, bool) {
	p.t.Helper()
	for _, l := range p.Lines() {
		if l.Action == action && (l.Prefix == prefix || prefix == "" || strings.Contains(strings.Join(l.Prefixes, " "), prefix)) {
			return l, true
		}
	}
	return Line{}, false
}

// Await waits for a line about a prefix with an action.
func (p *Program) Await(action, prefix string) Line {
	p.t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if l, ok := p.Find(action, prefix); ok {
			return l
		}
		select {
		case <-p.end:
			p.t.Fatalf("it ended (%v) before it told: %s %s\n%s", p.err, action, prefix, p.brief())
		default:
		}
	}
	p.t.Fatalf("it does not tell: %s %s\n%s", action, prefix, p.brief())
	return Line{}
}

// brief is what it has written, as far as a person reads it.
func (p *Program) brief() string {
	out, log := p.Text()
	lines := strings.Split(out+log, "\n")
	if len(lines) > 20 {
		lines = append(lines[:10], lines[len(lines)-10:]...)
	}
	for i, l := range lines {
		lines[i] = l[:min(len(l), 300)]
	}
	return strings.Join(lines, "\n")
}

// AwaitLog waits for a text on standard error.
func (p *Program) AwaitLog(text string) {
	p.t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, log := p.Text(); strings.Contains(log, text) {
			return
		}
	}
	p.t.Fatalf("no %q in\n%s", text, p.brief())
}

// Wait waits for the end, and returns the exit status.
func (p *Program) Wait() int {
	p.t.Helper()
	select {
	case <-p.end:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		p.t.Fatal("the program does not end")
		return -1
	}
}

// Stop ends the program by a signal, which must be an end without an error.
func (p *Program) Stop(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	if status := p.Wait(); status != 0 {
		_, log := p.Text()
		p.t.Errorf("after %v: status %d: %s", s, status, log)
	}
}
