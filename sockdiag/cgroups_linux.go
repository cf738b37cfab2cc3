package sockdiag

import (
	"io/fs"
	"syscall"
)

// inodeOf returns the inode number of a file.
func inodeOf(info fs.FileInfo) (uint64, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Ino, true
}
