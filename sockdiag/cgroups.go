package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Cgroup is a cgroup of the v2 hierarchy, and what its path tells of who is in
// it. It is comparable.
type Cgroup struct {
	// Path is that of the directory below the hierarchy's root, as in
	// /proc/PID/cgroup: "/system.slice/nginx.service". The root is "/".
	Path string
	// Unit is the unit of the system's systemd, such as nginx.service or
	// user@1000.service; empty without one.
	Unit string
	// UserUnit is the unit of the user's systemd that Unit is, if it is
	// user@UID.service.
	UserUnit string
	// Runtime made the Container: docker, podman, containerd, cri-o, nerdctl,
	// lxc, or empty when its path does not tell.
	Runtime string
	// Container is its ID, of 64 hexadecimal digits, or with lxc its name; empty outside of one.
	Container string
	// Pod is the UID of the Kubernetes pod; empty outside of one.
	Pod string
}

// Cgroups are the cgroups of a host by Socket.CgroupID.
type Cgroups struct {
	paths map[uint64]string
}

// ReadCgroups reads which cgroups there are. root is where the v2 hierarchy is
// mounted; empty is /sys/fs/cgroup, or /sys/fs/cgroup/unified where that has only
// v1. It takes no privilege. A cgroup that is made later, or that is removed with
// sockets left in it, is not known.
//
// Errors: errors.ErrUnsupported when there is no v2 hierarchy, fs.ErrNotExist when
// root is not there.
func ReadCgroups(root string) (*Cgroups, error) {
	root, err := cgroupRoot(root, "/sys/fs/cgroup")
	if err != nil {
		return nil, &OpError{Op: "cgroups", Err: err}
	}
	c := &Cgroups{paths: make(map[uint64]string)}
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return vanished(name, err)
		}
		if !d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return vanished(name, err)
		}
		if id, ok := inodeOf(info); ok {
			c.paths[id] = path.Join("/", name)
		}
		return nil
	})
	if err != nil {
		return nil, &OpError{Op: "cgroups", Err: err}
	}
	return c, nil
}

// vanished skips a cgroup that was removed meanwhile or cannot be read.
func vanished(name string, err error) error {
	if name != "." && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
		return fs.SkipDir
	}
	return err
}

// cgroupRoot finds the v2 hierarchy: all its directories have cgroup.procs, and
// its root alone of all v1 and v2 ones has cgroup.controllers.
func cgroupRoot(root, usual string) (string, error) {
	try := []string{root}
	if root == "" {
		try = []string{usual, filepath.Join(usual, "unified")}
	}
	for _, dir := range try {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			return dir, nil
		}
	}
	if _, err := os.Stat(try[0]); err != nil {
		return "", err
	}
	return "", fmt.Errorf("no cgroup v2 hierarchy at %s: %w", strings.Join(try, " or "), errors.ErrUnsupported)
}

// Len is how many cgroups there are.
func (c *Cgroups) Len() int { return len(c.paths) }

// Lookup returns a cgroup by its ID, and whether it is known.
func (c *Cgroups) Lookup(id uint64) (Cgroup, bool) {
	p, ok := c.paths[id]
	if !ok {
		return Cgroup{}, false
	}
	return ParseCgroup(p), true
}

// Of returns the cgroup of a socket. TimeWait and SynRecv have none, nor does the
// kernel tell it before Linux 5.8.
func (c *Cgroups) Of(s Socket) (Cgroup, bool) {
	if !s.Has(FieldCgroup) {
		return Cgroup{}, false
	}
	return c.Lookup(s.CgroupID)
}
