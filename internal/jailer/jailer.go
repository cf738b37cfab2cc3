package jailer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban/fail2ban"
)

// Server is a fail2ban-server.
type Server struct {
	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
	out   strings.Builder // complete once ended is closed
}

// Config is what a Server has besides the files of package ban/fail2ban.
type Config struct {
	// Files are the administrator's, by their name below the directory of the
	// server. DIR in a text is that directory.
	Files map[string]string
	// Jails are those that there must be before it is said to have started.
	Jails []string
	// Installed is to begin with the files in /etc/fail2ban, actions among them,
	// but not with the jails that are enabled there.
	Installed bool
	// Start is for a server in another namespace; nil is as the caller is.
	Start func(*exec.Cmd) error
}

// Start starts a server, which takes a second. Without fail2ban the error is
// exec.ErrNotFound.
func Start(cfg *Config) (_ *Server, err error) {
	path, err := exec.LookPath("fail2ban-server")
	if err != nil {
		return nil, err
	}
	s := &Server{ended: make(chan struct{})}
	if s.dir, err = os.MkdirTemp("", ""); err != nil {
		return nil, err
	}
	if err := s.configure(cfg); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	s.cmd = exec.Command(path, "-c", s.dir, "-s", s.Socket(), "-p", s.Path("pid"), "-f", "start")
	// For actions: where administrators' tools are, and a lock of iptables' own.
	s.cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "XTABLES_LOCKFILE="+s.Path("xtables.lock"))
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	start := (*exec.Cmd).Start
	if cfg.Start != nil {
		start = cfg.Start
	}
	if err := start(s.cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	if err := s.await(cfg.Jails); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// configure writes the configuration: what is installed, if wanted, the files
// shipped, as they are, and what an administrator sets beside them.
func (s *Server) configure(cfg *Config) error {
	if cfg.Installed {
		if err := os.CopyFS(s.dir, os.DirFS("/etc/fail2ban")); err != nil {
			return err
		}
		if err := os.RemoveAll(s.Path("jail.d")); err != nil {
			return err
		}
	}
	if err := os.CopyFS(s.dir, fail2ban.Files()); err != nil {
		return err
	}
	const own = "[Definition]\nloglevel = INFO\nlogtarget = DIR/log\nsyslogsocket = auto\ndbfile = None\nallowipv6 = auto\n"
	if err := s.Write("fail2ban.local", own); err != nil {
		return err
	}
	for file, text := range cfg.Files {
		if err := s.Write(file, text); err != nil {
			return err
		}
	}
	return nil
}

// Write writes a file below the server's directory, where DIR is that directory.
func (s *Server) Write(file, text string) error {
	file = s.Path(file)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", s.dir)), 0o600)
}

// Append appends to a file as a program does that others read.
func (s *Server) Append(file string, text []byte) error {
	f, err := os.OpenFile(s.Path(file), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// await waits until the jails are there.
func (s *Server) await(jails []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		j, err := fail2ban.Open(ctx, &fail2ban.Config{Socket: s.Socket(), Jails: jails})
		if err == nil {
			return j.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fail2ban-server does not start: %w", err)
		case <-s.ended:
			return fmt.Errorf("fail2ban-server ends: %s", s.out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Path is that of a file below the server's directory.
func (s *Server) Path(file string) string { return filepath.Join(s.dir, file) }

// Socket is the path of the server's socket.
func (s *Server) Socket() string { return s.Path("sock") }

// Log returns what the server has logged.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.Path("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Client runs fail2ban-client, as an administrator does.
func (s *Server) Client(ctx context.Context, words ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "fail2ban-client", append([]string{"-c", s.dir, "-s", s.Socket()}, words...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fail2ban-client %q: %w: %s", words, err, out)
	}
	return string(out), nil
}

// Stop ends the server and removes its directory.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	return os.RemoveAll(s.dir)
}
