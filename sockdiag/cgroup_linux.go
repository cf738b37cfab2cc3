package sockdiag

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// cgroupIDOf returns the ID of a cgroup of the v2 hierarchy: the inode number
// of its directory.
func cgroupIDOf(path string) (uint64, error) {
	var at unix.Statfs_t
	err := unix.Statfs(path, &at)
	if err == nil && uint32(at.Type) != unix.CGROUP2_SUPER_MAGIC {
		err = fmt.Errorf("not in the hierarchy of cgroup2: %w", fs.ErrInvalid)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Stat(path, &st)
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return 0, &fs.PathError{Op: "cgroup", Path: path, Err: err}
	}
	return st.Ino, nil
}
