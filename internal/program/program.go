package program

import (
	"bytes"
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
const child = "CONNSLEUTH_PROGRAM"

// Main is for TestMain: in a process that was made by Start it runs the program.
func Main(m *testing.M, program func()) {
	if os.Getenv(child) != "" {
		program()
		return
	}
	lab.Main(m)
}

// patience is how long anything is waited for.
const patience = 40 * time.Second

// Program is the program at work in a host.
type Program struct {
	t   *testing.T
	cmd *exec.Cmd
	end chan struct{}
	err error // once end is closed

	mu       sync.Mutex
	out, log bytes.Buffer
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

// Start starts the program in a host. It is killed when the test ends.
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

// Until waits until done, or until the program has ended without.
func (p *Program) Until(what string, done func() bool) {
	p.t.Helper()
	for end, over := time.Now().Add(patience), false; !done(); time.Sleep(5 * time.Millisecond) {
		switch {
		case over:
			p.t.Fatalf("it ended (%v) without: %s\n%s", p.err, what, p.brief())
		case time.Now().After(end):
			p.t.Fatalf("it goes on without: %s\n%s\n%s", what, p.brief(), p.stacks())
		}
		over = p.ended()
	}
}

func (p *Program) ended() bool {
	select {
	case <-p.end:
		return true
	default:
		return false
	}
}

// Says waits until the program has written a text.
func (p *Program) Says(text string) {
	p.t.Helper()
	p.Until(text, func() bool {
		out, log := p.Text()
		return strings.Contains(out, text) || strings.Contains(log, text)
	})
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

// stacks ends the program, and returns what it was at.
func (p *Program) stacks() string {
	_, before := p.Text()
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
	select {
	case <-p.end:
	case <-time.After(patience / 4):
	}
	_, log := p.Text()
	return strings.TrimPrefix(log, before)
}

// Wait waits for the end, and returns the exit status: -1 after a signal.
func (p *Program) Wait() int {
	p.t.Helper()
	select {
	case <-p.end:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("the program does not end\n%s\n%s", p.brief(), p.stacks())
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

// Kill ends the program by SIGKILL.
func (p *Program) Kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.Wait()
}
