package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
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
		n, err := total.tool.add(cmd)
		if errors.Is(err, exec.ErrNotFound) {
			total.tool.Missing = true
			return total, nil
		}
		if err != nil {
			return outcome{}, err
		}
		total.entries += n
	}
	return total, nil
}

// add runs a command and adds what it takes.
func (r *result) add(cmd *exec.Cmd) (entries int, err error) {
	var diagnosis bytes.Buffer
	cmd.Stderr = &diagnosis
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
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
	found := told.FindSubmatch(diagnosis.Bytes())
	if err != nil || found == nil {
		return 0, fmt.Errorf("%v: %w: %s", cmd, err, bytes.TrimSpace(diagnosis.Bytes()))
	}
	return strconv.Atoi(string(found[1]))
}
