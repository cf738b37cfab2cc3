package main

import (
	"context"
	"fmt"
)

// work is one thing to do, with one library.
type work struct {
	name      string
	reference string // what it is compared with
	entries   bool   // it can say how many entries it met
	do        func() (outcome, error)
}

// subject is what one table is about.
type subject struct {
	works []work
	open  func(n int) (place, error)
}

// place is where the works of a subject are done.
type place interface {
	fmt.Stringer
	// fill makes what the works find, unless it is there.
	fill(context.Context) error
	// size is how many there are.
	size() int
	// do calls a function inside.
	do(func() error) error
	Close() error
}

var subjects = []subject{
	{flowWorks, openTable},
	{socketWorks, openCrowd},
	{destroyWorks, openPairs},
	{banWorks, openEmpty},
	{bannedWorks, openBanned},
	{oneWorks, openSingles},
	{ipsetWorks, openIpsetEmpty},
	{ipsetListWorks, openIpsetFull},
	{ipsetOneWorks, openIpsetSingle},
}

const (
	floor     = "dump: bare read(2), thrown away"
	deleteAll = "delete: connsleuth DeleteAll(All)"
)

var flowWorks = []work{
	{floor, floor, false, discard},
	{"dump: connsleuth Parallel", floor, true, dumpParallel},
	{"dump: connsleuth All", floor, true, dumpAll},
	{"dump: connsleuth Snapshot", floor, true, dumpSnapshot},
	{"dump: conntrack -L -o extended", floor, true, dumpTool},
	{"dump: vishvananda/netlink ConntrackTableList", floor, true, dumpVishvananda},
	{"dump: ti-mo/conntrack Dump", floor, true, dumpTimo},
	{"dump: florianl/go-conntrack Dump", floor, true, dumpFlorianl},
	{deleteAll, deleteAll, true, deleteInBatches},
	{"delete: connsleuth Delete", deleteAll, true, deleteOneByOne},
	{"delete: conntrack -D", deleteAll, true, deleteTool},
	{"delete: vishvananda/netlink ConntrackDeleteFilters", deleteAll, true, deleteVishvananda},
	{"delete: ti-mo/conntrack Delete", deleteAll, true, deleteTimo},
	{"delete: florianl/go-conntrack Delete", deleteAll, true, deleteFlorianl},
}

const (
	socketFloor = "sockets: bare read(2), thrown away"
	infoFloor   = "sockets, tcp_info: bare read(2), thrown away"
	destroyAll  = "destroy: connsleuth DestroyAll(All)"
)

var socketWorks = []work{
	{socketFloor, socketFloor, false, discardSockets},
	{"sockets: connsleuth All", socketFloor, true, allSockets},
	{"sockets: connsleuth Aggregate by state and peer", socketFloor, true, aggregateSockets},
	{"sockets: connsleuth Snapshot", socketFloor, true, snapshotSockets},
	{"sockets: ss -tan", socketFloor, false, ssTool("-tanH")},
	{"sockets: vishvananda/netlink SocketDiagTCP", socketFloor, true, socketsVishvananda},
	{"sockets: elastic/gosigar NetlinkInetDiag", socketFloor, true, socketsGosigar},
	{"sockets: prometheus/procfs NetTCP", socketFloor, true, socketsProcfs},
	{"sockets: shirou/gopsutil ConnectionsWithoutUids", socketFloor, true, socketsGopsutil},
	{infoFloor, infoFloor, false, discardInfo},
	{"sockets, tcp_info: connsleuth All", infoFloor, true, allInfo},
	{"sockets, tcp_info: connsleuth Snapshot", infoFloor, true, snapshotInfo},
	{"sockets, tcp_info: ss -tani", infoFloor, false, ssTool("-taniH")},
	{"sockets, tcp_info: vishvananda/netlink SocketDiagTCPInfo", infoFloor, true, infoVishvananda},
}

var destroyWorks = []work{
	{destroyAll, destroyAll, true, destroyInBatches},
	{"destroy: connsleuth Destroy", destroyAll, true, destroyOneByOne},
	{"destroy: vishvananda/netlink SocketDestroy", destroyAll, true, destroyVishvananda},
}

func find(name string) (work, error) {
	for _, s := range subjects {
		for _, w := range s.works {
			if w.name == name {
				return w, nil
			}
		}
	}
	return work{}, fmt.Errorf("nothing is called %q", name)
}
