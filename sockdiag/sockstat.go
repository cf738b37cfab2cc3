package sockdiag

import (
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
)

// procNet is what the kernel tells of the network namespace of the calling
// thread.
var procNet = os.DirFS("/proc/thread-self/net")

// mostExpected is how many sockets room is made for because the kernel counted
// them: a pointer of 32 bits could not address more.
const mostExpected = min(1<<20, math.MaxInt/8192)

// everyTCP reports whether q selects all that countTCP counts.
func (q Query) everyTCP() bool {
	every := Query{
		Protocol: q.Protocol, States: q.States,
		Info: q.Info, Memory: q.Memory, Congestion: q.Congestion, TOS: q.TOS,
	}
	return q == every && q.protocol() == TCP && q.kernelStates()&allStates == allStates
}

// countTCP returns how many TCP sockets the kernel counts, and some that come
// meanwhile; 0 when it does not say. Handshakes are not counted.
func countTCP(net fs.FS) int {
	n := sockstat(net, "sockstat", "TCP", "inuse") + sockstat(net, "sockstat", "TCP", "tw") +
		sockstat(net, "sockstat6", "TCP6", "inuse")
	return min(n+n/32, mostExpected)
}

// sockstat returns a number of /proc/net/sockstat, whose lines are a name, a
// colon and pairs of a key and a number; 0 when there is none.
func sockstat(net fs.FS, file, line, key string) int {
	b, err := fs.ReadFile(net, file)
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		words := strings.Fields(l)
		if len(words) == 0 || words[0] != line+":" {
			continue
		}
		for i := 1; i+1 < len(words); i += 2 {
			if words[i] == key {
				n, _ := strconv.Atoi(words[i+1]) // it was no number: 0
				return max(0, n)
			}
		}
	}
	return 0
}
