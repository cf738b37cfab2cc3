package reject

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/connsleuth/connsleuth/internal/netns"
)

// firstGroup is above those that people choose by hand.
const firstGroup = 20100

// freeGroup is the first group that nobody listens to.
func freeGroup(bound map[uint16]bool, given []uint16) uint16 {
	g := uint16(firstGroup)
	for (bound[g] || slices.Contains(given, g)) && g != firstGroup-1 {
		g++
	}
	return g
}

// boundGroups are those that have a listener in the namespace.
func boundGroups(ns *netns.Thread) (map[uint16]bool, error) {
	b, err := ns.ReadFile("net/netfilter/nfnetlink_log")
	if errors.Is(err, fs.ErrNotExist) { // the module comes with the first listener
		err = nil
	}
	return parseGroups(b), err
}

// parseGroups reads /proc/net/netfilter/nfnetlink_log: a group in the first
// column.
func parseGroups(b []byte) map[uint16]bool {
	bound := make(map[uint16]bool)
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 0 {
			if g, err := strconv.ParseUint(f[0], 10, 16); err == nil {
				bound[uint16(g)] = true
			}
		}
	}
	return bound
}
