package snapshot

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Sees returns what detectors can rely on. Flows are seen if there is one:
// where nothing is tracked, that an entry is missing says nothing. The error is
// that of the first flow.
func (s *Snapshot) Sees() (detect.Needs, error) {
	var sees detect.Needs
	if s.Sockets != nil {
		sees |= detect.NeedSockets
	}
	if h := &s.Host; h.Settings != (conntrack.Settings{}) || h.Sysctls != (sockdiag.Settings{}) || h.Usage != (conntrack.Usage{}) ||
		len(h.Stats) > 0 || len(h.Log) > 0 {
		sees |= detect.NeedSettings
	}
	if len(s.Host.Files) > 0 {
		sees |= detect.NeedFiles
	}
	if s.Flows == nil {
		return sees, nil
	}
	for _, err := range s.Flows {
		if err != nil {
			return sees, err
		}
		return sees | detect.NeedFlows, nil
	}
	return sees, nil
}

// Owners tells a Host the processes that have sockets open, and adds how many
// files these processes have open. It returns how many processes could not be looked
// at (CAP_SYS_PTRACE). It remembers the inode numbers of all sockets.
func Owners(ctx context.Context, h *detect.Host, proc sockdiag.Proc, sockets iter.Seq2[sockdiag.Socket, error]) (unreadable int, err error) {
	var inodes []uint32
	for s, err := range sockets {
		if err != nil {
			return 0, err
		}
		inodes = append(inodes, s.Inode)
	}
	all, err := proc.Holders(ctx, inodes...)
	if err != nil {
		return 0, err
	}
	h.Holders = make(map[uint32][]sockdiag.Holder)
	processes := make(map[int]sockdiag.Process)
	for _, inode := range inodes {
		for _, holder := range all.Of(inode) {
			h.Holders[inode] = all.Of(inode)
			processes[holder.Process.PID] = holder.Process
		}
	}
	for _, pid := range slices.Sorted(maps.Keys(processes)) {
		if d, err := proc.Descriptors(pid); err == nil { // it may have ended
			h.Files = append(h.Files, detect.OpenFiles{Process: processes[pid], Descriptors: d})
		}
	}
	return all.Unreadable, nil
}
