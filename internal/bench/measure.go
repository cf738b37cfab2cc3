package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// result is what a piece of work took.
type result struct {
	Missing     bool // the tool is not installed
	Wall        time.Duration
	User, Sys   time.Duration
	Allocations uint64 // unknown, 0, of tools
	RSS         int    // KiB, at most
}

// outcome is what a piece of work did. What others did for it, a tool, it has
// measured itself.
type outcome struct {
	entries int
	wall    time.Duration // without what led up to it; 0 is all
	tool    *result
}

// asked is how many entries a piece of work is about.
var asked int

// measure does a piece of work and prints what it took.
func measure(name string, n int) error {
	asked = n
	w, err := find(name)
	if err != nil {
		return err
	}
	var before, after runtime.MemStats
	var began, ended unix.Rusage
	runtime.ReadMemStats(&before)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &began); err != nil {
		return err
	}
	start := time.Now()
	done, err := w.do()
	wall := time.Since(start)
	if err != nil {
		return err
	}
	if done.wall > 0 {
		wall = done.wall
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ended); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	r := result{
		Wall: wall, Allocations: after.Mallocs - before.Mallocs,
		User: time.Duration(ended.Utime.Nano() - began.Utime.Nano()),
		Sys:  time.Duration(ended.Stime.Nano() - began.Stime.Nano()),
	}
	if r.RSS, err = peak(os.Getpid()); err != nil {
		return err
	}
	if done.tool != nil {
		r = *done.tool
	}
	if !r.Missing && done.entries != n && w.entries {
		return fmt.Errorf("%d entries, want %d", done.entries, n)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peak is the most memory a process has had resident, in KiB. That of getrusage
// counts the process it was forked from, too.
func peak(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
	}
	return strconv.Atoi(string(found[1]))
}
