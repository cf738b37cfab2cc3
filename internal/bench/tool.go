package main

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func dumpTool() (outcome, error) { return conntrackTool("-L", "-o", "extended") }

// deleteTool deletes by mark, which all entries have: without any condition
// conntrack -D does nothing.
func deleteTool() (outcome, error) { return conntrackTool("-D", "-m", "0") }

var told = regexp.MustCompile(`(\d+) flow entries have been`)

// conntrackTool runs conntrack(8) for each family, and throws what it prints
// away.
func conntrackTool(args ...string) (outcome, error) {
	total := outcome{tool: &result{}}
	for _, family := range []string{"ipv4", "ipv6"} {
		cmd := exec.Command("conntrack", append(args, "-f", family)...)
		diagnosis, err := total.tool.add(cmd)
		if err != nil {
			return outcome{}, err
		}
		if total.tool.Missing {
			return total, nil
		}
		found := told.FindStringSubmatch(diagnosis)
		if found == nil {
			return outcome{}, fmt.Errorf("%v: %s", cmd, diagnosis)
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			return outcome{}, err
		}
		total.entries += n
	}
	return total, nil
}

// ssTool runs ss(8), and throws what it prints away.
func ssTool(option string) func() (outcome, error) {
	return func() (outcome, error) {
		done := outcome{tool: &result{}}
		_, err := done.tool.add(exec.Command("ss", option))
		return done, err
	}
}

// add runs a command and adds what it takes, or notes that it is missing.
func (r *result) add(cmd *exec.Cmd) (diagnosis string, err error) {
	var out strings.Builder
	cmd.Stderr = &out
	start := time.Now()
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		r.Missing = true
		return "", nil
	} else if err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for waiting := true; waiting; {
		select {
		case err = <-done:
			waiting = false
		case <-time.After(10 * time.Millisecond):
			if rss, err := peak(cmd.Process.Pid); err == nil { // gone, it has none
				r.RSS = max(r.RSS, rss)
			}
		}
	}
	r.Wall += time.Since(start)
	r.User += cmd.ProcessState.UserTime()
	r.Sys += cmd.ProcessState.SystemTime()
	diagnosis = strings.TrimSpace(out.String())
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", cmd, err, diagnosis)
	}
	return diagnosis, err
}
