package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// startAgain runs the program in a user and a network namespace and exits with
// its status. It returns only if the kernel does not allow that.
func startAgain(error) error {
	// The kernel kills the child when this thread ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args,
		Env:   append(os.Environ(), marker+"=1"),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		},
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // its path, /proc/self/exe, tells nobody anything
		}
		return forbidden("clone(CLONE_NEWUSER | CLONE_NEWNET)", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // fails only when it has ended
		}
	}()
	os.Exit(status(cmd.Wait()))
	return nil
}

// status is the exit status that tells how a process ended; for one killed by
// a signal, 128 and its number, as a shell has it.
func status(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return e.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	return 1
}
