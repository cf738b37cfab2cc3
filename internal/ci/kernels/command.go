package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// output runs a program in dir, with env added to the environment, and
// returns its standard output. The error ends with what the program said.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", commandError(cmd, err, stderr.String()+stdout.String())
	}
	return stdout.String(), nil
}

func commandError(cmd *exec.Cmd, err error, said string) error {
	line := strings.Join(cmd.Args, " ")
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	said = strings.TrimSpace(said)
	if lines := strings.Split(said, "\n"); len(lines) > 20 {
		said = strings.Join(lines[len(lines)-20:], "\n")
	}
	if said != "" {
		said = "\n" + said
	}
	return fmt.Errorf("%s: %w%s", line, err, said)
}
