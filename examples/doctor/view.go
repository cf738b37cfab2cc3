package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/snapshot"
)

// proc is this host's.
var proc = os.DirFS("/proc")

// view is a host as far as it could be seen. A nil sequence could not.
type view struct {
	*snapshot.Snapshot
	notes   []string // what could not be seen, and why
	closers []func() error
}

func (v *view) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

// blind notes which detectors could not look, together where they lack the same.
func (v *view) blind(sees detect.Needs, entries []detect.Entry) {
	names := make(map[detect.Needs][]string)
	for _, e := range entries {
		names[e.Needs&^sees] = append(names[e.Needs&^sees], e.Name())
	}
	for _, needs := range slices.Sorted(maps.Keys(names)) {
		v.note("without %v, these did not look: %s", needs, strings.Join(names[needs], ", "))
	}
}

func (v *view) close() {
	for _, c := range v.closers {
		_ = c() // only read from
	}
}

// see looks at a snapshot or at this host, by way of a snapshot if it is to be
// recorded.
func see(ctx context.Context, o options) (*view, error) {
	switch {
	case o.from != "" && o.record != "":
		return nil, errors.New("-from and -record exclude each other")
	case o.from != "":
		return open(o.from)
	}
	v, err := twice(ctx, o.over, o.log)
	if err != nil || o.record == "" {
		return v, err
	}
	defer v.close()
	if err := snapshot.Record(o.record, v.Host, proc, v.Sockets, v.Flows); err != nil {
		return nil, err
	}
	recorded, err := open(o.record)
	if err != nil {
		return nil, err
	}
	recorded.notes = append(v.notes, recorded.notes...)
	return recorded, nil
}

// open looks at a snapshot.
func open(dir string) (*view, error) {
	s, err := snapshot.Open(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	v := &view{Snapshot: s}
	for _, f := range s.Files {
		if f.Unused != "" {
			v.note("not read: %s (%s): %s", f.Name, f.Kind, f.Unused)
		}
	}
	return v, nil
}
