package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// sight is what was seen of this host.
type sight struct {
	host  detect.Host
	flows bool     // the flows were seen
	blind []string // what was not
}

// look reads the sockets, then who has them, then the flows.
func look(ctx context.Context) (*sight, error) {
	s := &sight{host: detect.Host{Now: time.Now()}}
	d, err := sockdiag.Dial(nil)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // nothing is under way
	sockets, err := d.Snapshot(ctx, sockdiag.Query{Info: true, Memory: true})
	if err != nil {
		return nil, err
	}
	s.host.Sockets = sockets.Sockets
	s.addresses()
	if err := s.owners(ctx); err != nil {
		s.not("the processes that have sockets", err)
	}
	if s.host.Settings, err = conntrack.ReadSettings(os.DirFS("/proc")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.not("the tracker's settings", err)
	}
	if s.host.Usage, err = conntrack.ReadUsage(os.DirFS("/proc")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.not("how full the tracker is", err)
	}
	if s.host.Stats, err = conntrack.ReadStats(os.DirFS("/proc")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.not("the tracker's counters", err)
	}
	if err := s.track(ctx); err != nil {
		s.not("flows", err)
	}
	return s, nil
}

func (s *sight) not(what string, err error) {
	s.blind = append(s.blind, fmt.Sprintf("%s: %v", what, err))
}

func (s *sight) addresses() {
	all, err := net.InterfaceAddrs()
	if err != nil {
		s.not("addresses", err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			s.host.Addrs = append(s.host.Addrs, p.Addr())
		}
	}
}

// owners finds the processes that have the sockets, and how many files each may
// still open.
func (s *sight) owners(ctx context.Context) error {
	var inodes []uint32
	for _, row := range s.host.Sockets {
		if row.HasOwner() {
			inodes = append(inodes, row.Inode)
		}
	}
	proc := sockdiag.Proc("")
	holders, err := proc.Holders(ctx, inodes...)
	if err != nil {
		return err
	}
	if holders.Unreadable > 0 {
		s.not("owners", fmt.Errorf("%d processes of other users (takes CAP_SYS_PTRACE)", holders.Unreadable))
	}
	s.host.Holders = make(map[uint32][]sockdiag.Holder)
	processes := make(map[sockdiag.Process]bool)
	for _, inode := range inodes {
		s.host.Holders[inode] = holders.Of(inode)
		for _, h := range s.host.Holders[inode] {
			if !processes[h.Process] {
				processes[h.Process] = true
				s.files(h.Process, func() (sockdiag.Descriptors, error) { return proc.Descriptors(h.Process.PID) })
			}
		}
	}
	s.files(sockdiag.Process{}, proc.SystemDescriptors)
	return nil
}

// files adds how many files a process has open; one that has ended has none.
func (s *sight) files(p sockdiag.Process, read func() (sockdiag.Descriptors, error)) {
	if d, err := read(); err == nil {
		s.host.Files = append(s.host.Files, detect.OpenFiles{Process: p, Descriptors: d})
	}
}

func (s *sight) track(ctx context.Context) error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	flows, err := c.Snapshot(ctx, nil)
	if err != nil {
		return err
	}
	s.host.Flows, s.flows = flows.Flows, true
	return nil
}

// evidence is what a finding rests on, a line each.
func evidence(f detect.Finding) (lines []string) {
	for _, row := range f.Evidence.Flows {
		lines = append(lines, row.String())
	}
	for _, row := range f.Evidence.Sockets {
		lines = append(lines, row.String())
	}
	for _, set := range f.Evidence.Settings {
		lines = append(lines, set.String())
	}
	for _, missing := range f.Evidence.Missing {
		lines = append(lines, "not known: "+missing)
	}
	return lines
}
