package conntrack

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseStats reads a line of conntrack -S, which String writes: "cpu=0 found=2
// invalid=4". Words that are not known are skipped. A line without a processor
// is a Total.
func ParseStats(line string) (Stats, error) {
	s := Stats{CPU: -1}
	for word := range strings.FieldsSeq(line) {
		name, value, ok := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		switch {
		case !ok || err != nil:
			return Stats{}, opError("stats", fmt.Errorf("%q is not a name and a number of 32 bits", word))
		case name == "cpu":
			s.CPU = int(n)
		default:
			s.set(name, n)
		}
	}
	if s.Fields == 0 {
		return Stats{}, opError("stats", errors.New("no counter is known"))
	}
	return s, nil
}

func (s *Stats) set(word string, n uint64) {
	for i, c := range statCounters {
		if c.word == word {
			*c.ptr(s) = n
			s.Fields |= 1 << i
		}
	}
}
