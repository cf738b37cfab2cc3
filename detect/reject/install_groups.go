package reject

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
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
func (n *installNS) boundGroups() (bound map[uint16]bool, err error) {
	err = n.do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log")
		bound = parseGroups(b)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // the module comes with the first listener
		err = nil
	}
	return bound, err
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
