package program

import (
	"os"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// StartPlain is Start without any capability.
func StartPlain(t *testing.T, h *lab.Host, args ...string) *Program {
	t.Helper()
	const user = 1000 // any that is not 0: exec then takes the capabilities away
	return start(t, h, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getgid(), Size: 1}},
	}, args)
}
