package detect

import (
	"fmt"
	"slices"
	"strings"
)

// Needs is what a detector must see: without it, it would find nothing, or what
// is not there.
type Needs uint8

// What detectors need.
const (
	NeedFlows Needs = 1 << iota
	NeedSockets
	NeedRows     // flows or sockets: who sees either sees this
	NeedSettings // what Host has of settings, usage, counters or log
	NeedFiles    // Host.Files
)

// String names what is needed: "flows and sockets".
func (n Needs) String() string {
	var names []string
	for i, name := range []string{"flows", "sockets", "flows or sockets", "settings", "open files"} {
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
// with the thresholds of the incidents. Together they add some 0.3
// microseconds to each row of a million, and 0.1 more if the table is full.
// They keep at most 300 bytes of each socket, 50 of each source, port and state
// of the flows, and 8 MiB; and what they find.
func All() []Entry {
	return []Entry{
		{Audit{}, NeedSettings, "settings that break connections, or did in the incidents"},
		{Ghosts{}, NeedFlows | NeedSockets, "entries without a socket, which block the reuse of a port"},
		{LostFlows{}, NeedFlows | NeedSockets, "connections that the tracker has forgotten, or soon will"},
		{PortReuse{}, NeedFlows | NeedSockets, "entries that a new connection from the same port would meet"},
		{PortSpace{}, NeedFlows, "addresses and services that run out of source ports"},
		{Pressure{}, NeedSettings, "a table that is full or fills, of what, and what it drops"},
		{PerSource{}, NeedRows, "sources with many connections in one state"},
		{IdleFlood{}, NeedSockets, "sources with many connections that carry nothing"},
		{SynFlood{}, NeedRows, "half-open connections, and what they keep out"},
		{OutboundScan{}, NeedRows, "connecting to many destinations that do not answer"},
		{Leaks{}, NeedSockets, "sockets that are not closed, or that peers left behind"},
		{AcceptQueue{}, NeedSockets, "listeners whose program does not accept"},
		{Descriptors{}, NeedFiles, "processes that run out of file descriptors"},
		{Census{}, NeedRows, "piles of connections in one state, and what each means"},
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
	if have&(NeedFlows|NeedSockets) != 0 {
		have |= NeedRows
	}
	for _, e := range entries {
		if e.Needs&^have == 0 {
			can = append(can, e.Detector)
		} else {
			cannot = append(cannot, e)
		}
	}
	return can, cannot
}
