package main

import (
	"fmt"
)

// work is one thing to do, with one library.
type work struct {
	name      string
	reference string // what it is compared with
	entries   bool   // it can say how many entries it met
	do        func() (outcome, error)
}

const (
	floor     = "dump: bare read(2), thrown away"
	deleteAll = "delete: connsleuth DeleteAll(All)"
)

var works = []work{
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

func find(name string) (work, error) {
	for _, w := range works {
		if w.name == name {
			return w, nil
		}
	}
	return work{}, fmt.Errorf("nothing is called %q", name)
}
