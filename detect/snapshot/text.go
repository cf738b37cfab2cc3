package snapshot

import (
	"bufio"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
)

// maxLine bytes are the most a line may have, and maxLog are the most lines of
// a log that are kept: the last ones.
const (
	maxLine = 64 << 10
	maxLog  = 1000
)

// text reads what is not of /proc.
func (s *Snapshot) text() error {
	for _, k := range []struct {
		kind Kind
		line func(string) error
	}{{ToolStats, s.toolStats}, {Addresses, s.address}, {Log, s.log}} {
		for _, f := range s.of(k.kind) {
			if err := s.lines(f.Name, k.line); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
	}
	return nil
}

func (s *Snapshot) lines(name string, take func(string) error) error {
	in, _, err := open(s.dir, name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := take(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *Snapshot) toolStats(line string) error {
	if strings.TrimSpace(line) == "" {
		return nil
	}
	cpu, err := conntrack.ParseStats(line)
	s.Host.Stats = append(s.Host.Stats, cpu)
	return err
}

// inet is an address in a line of ip addr.
var inet = regexp.MustCompile(`\binet6? ([0-9a-f:.]+)[/ ]`)

func (s *Snapshot) address(line string) error {
	if word := inet.FindStringSubmatch(line); word != nil {
		a, err := netip.ParseAddr(word[1])
		if err != nil {
			return err
		}
		s.Host.Addrs = append(s.Host.Addrs, a)
	}
	return nil
}

// known are the lines of a kernel's log that tell of connections.
var known = regexp.MustCompile(`_conntrack|TCP: |VFS: file-max `)

func (s *Snapshot) log(line string) error {
	if !known.MatchString(line) {
		return nil
	}
	h := &s.Host
	h.Log = append(h.Log[max(0, len(h.Log)-maxLog+1):], line)
	return nil
}
