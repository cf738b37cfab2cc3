package lab

import (
	"io/fs"
	"os"
)

// marker is set in the environment of a process that was started again, so
// that it does not try once more.
const marker = "CONNSLEUTH_LAB_INSIDE"

// Enter makes the lab available to a program: call it first thing in main. A
// program that may make network namespaces goes on. Otherwise Enter starts the
// program again in a user namespace where it may, with the same arguments,
// environment, directory and standard files, waits for it, and exits with its
// status: it returns in the new process only. Where the machine does not allow
// that, the error is a *Forbidden.
//
// Inside, the program has user and group id 0 and all capabilities, but over
// namespaces of its own only.
func Enter() error {
	inside := os.Getenv(marker) != ""
	if err := os.Unsetenv(marker); err != nil {
		return err
	}
	err := probe()
	if err == nil {
		return nil
	}
	if inside {
		return forbidden("make a network namespace as root of a user namespace", err)
	}
	return startAgain(err)
}

// Main is for TestMain: it runs the tests in a process that can make hosts, as
// Enter does, and exits. Where the machine does not allow that, it runs them
// nevertheless: New then skips the test, or fails it when the environment has
// CONNSLEUTH_LAB=require. With CONNSLEUTH_LAB=skip New skips everywhere: for
// emulators that run a program but not the kernel's netlink for it.
func Main(m interface{ Run() int }) {
	if os.Getenv(require) == "skip" {
		disable(&Forbidden{Tried: "enter the lab", What: "CONNSLEUTH_LAB=skip", How: "unset CONNSLEUTH_LAB", Err: fs.ErrPermission})
	} else if err := Enter(); err != nil {
		disable(err)
	}
	os.Exit(m.Run())
}
