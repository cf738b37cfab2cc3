package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// Exec runs a command inside the host and returns its standard output. The
// error of one that failed has its standard error. When ctx ends the command
// is killed.
//
// Only the network is the host's: a command that reads /sys sees the
// machine's.
func (h *Host) Exec(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := lookPath(name)
	if err != nil {
		return nil, h.errorf("%w", err)
	}
	var stdout, stderr bytes.Buffer
	err = h.Do(func() error {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.SysProcAttr = dieWithThread()
		cmd.WaitDelay = time.Second
		return cmd.Run()
	})
	if err != nil {
		return stdout.Bytes(), h.errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// lookPath looks also where administrators' tools are, which is not in
// everyone's PATH.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if err == nil {
			return path, nil
		}
		if p, e := exec.LookPath(dir + name); e == nil {
			return p, nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}
