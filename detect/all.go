package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Needs is what a detector must see: without it, it would find nothing, or what
// is not there.
type Needs uint8

// What detectors need.
const (
	NeedFlows Needs = 1 << iota
	NeedSockets
	NeedSettings // Host.Settings or Host.Sysctls
)

// String names what is needed: "flows and sockets".
func (n Needs) String() string {
	var names []string
	for i, name := range []string{"flows", "sockets", "settings"} {
		if n&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}

// Entry is a detector of All.
type Entry struct {
	Detector
	Needs Needs
	// About says what it finds, in a few words.
	About string
}

// All returns the detectors of this package that look at one moment of a host,
// with the thresholds of the incidents.
func All() []Entry {
	return []Entry{
		{Audit{}, NeedSettings, "settings that break connections, or did in the incidents"},
		{collected{"Ghosts", Ghosts}, NeedFlows | NeedSockets, "entries without a socket, which block the reuse of a port"},
		{collected{"LostFlows", LostFlows}, NeedFlows | NeedSockets, "connections that the tracker has forgotten, or soon will"},
	}
}

// Named returns the detectors of All with these names, whatever their case, in
// the order of the names.
func Named(names ...string) ([]Entry, error) {
	all := All()
	var named []Entry
	for _, name := range names {
		i := slices.IndexFunc(all, func(e Entry) bool { return strings.EqualFold(e.Name(), name) })
		if i < 0 {
			return nil, fmt.Errorf("no detector %q", name)
		}
		named = append(named, all[i])
	}
	return named, nil
}

// Seeing parts entries into the detectors that have what they need, and the
// entries that have not.
func Seeing(have Needs, entries ...Entry) (can []Detector, cannot []Entry) {
	for _, e := range entries {
		if e.Needs&^have == 0 {
			can = append(can, e.Detector)
		} else {
			cannot = append(cannot, e)
		}
	}
	return can, cannot
}

// collected makes a Detector of a function over rows, which are kept.
type collected struct {
	name string
	find func(Host) []Finding
}

func (c collected) Name() string { return c.name }

func (c collected) Look(h *Host) Look {
	rows := *h
	rows.Flows, rows.Sockets = nil, nil
	return Look{
		Socket:   func(s *sockdiag.Socket) { rows.Sockets = append(rows.Sockets, *s) },
		Flow:     func(f *conntrack.Flow) { rows.Flows = append(rows.Flows, *f) },
		Findings: func() []Finding { return c.find(rows) },
	}
}
