package detect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// peers counts rows by the source at their other end. It knows maxPeers
// sources at most, and what others have is in rest.
type peers struct {
	of   map[source]uint64
	rest uint64
}

const maxPeers = 1 << 14

// add counts a row and returns how many its source has; 0 is not known.
func (p *peers) add(remote netip.Addr) uint64 {
	s := sourceOf(remote)
	n := p.of[s] + 1
	if !remote.IsValid() || n == 1 && len(p.of) == maxPeers {
		p.rest++
		return 0
	}
	if p.of == nil {
		p.of = make(map[source]uint64)
	}
	p.of[s] = n
	return n
}

// join adds what another has counted.
func (p *peers) join(o *peers) {
	if p.of == nil {
		p.of = make(map[source]uint64, len(o.of))
	}
	for s, n := range o.of {
		p.of[s] += n
	}
	p.rest += o.rest
}

// above returns the sources with more than limit rows, those with the most
// first, and at most as many as a Finding can well show.
func (p *peers) above(limit uint64) []netip.Prefix {
	var found []netip.Prefix
	for s, n := range p.of {
		if n > limit {
			found = append(found, s.prefix())
		}
	}
	slices.SortFunc(found, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(p.count(b), p.count(a)), a.Addr().Compare(b.Addr()))
	})
	return found[:min(len(found), 10)]
}

// count is how many rows one of the sources has.
func (p *peers) count(s netip.Prefix) uint64 { return p.of[sourceOf(s.Addr())] }

// text names the first of the sources with their counts.
func (p *peers) text(sources []netip.Prefix) string {
	var words []string
	for _, s := range sources[:min(len(sources), 3)] {
		words = append(words, fmt.Sprintf("%d of %s", p.count(s), bare(s)))
	}
	return strings.Join(words, ", ")
}

// isTCP reports whether a row is of TCP. Text does not always say so.
func isTCP(s *sockdiag.Socket) bool { return s.Protocol == sockdiag.TCP || s.Protocol == 0 }

// service is the end of a connection that was connected to: a port of this
// host, or with a valid remote, that.
type service struct {
	port   uint16
	remote netip.AddrPort
}

// serviceOf tells the service of a connection: the port of a listener of this
// host, or without one, the lower port.
func serviceOf(s *sockdiag.Socket, listening map[uint16]bool) service {
	port := s.Local.Port()
	if listening[port] || port < s.Remote.Port() {
		return service{port: port}
	}
	return service{remote: s.Remote}
}

func (s service) String() string {
	if s.remote.IsValid() {
		return "connections to " + s.remote.String()
	}
	return fmt.Sprintf("port %d", s.port)
}

// filter is the service in the language of ss(8).
func (s service) filter() string {
	if s.remote.IsValid() {
		return "dst = " + s.remote.String()
	}
	return fmt.Sprintf("sport = :%d", s.port)
}

// owner is who has a socket open: a process if it is known, else what the row
// tells. The zero owner is not known, or nobody.
type owner struct {
	pid    int
	uid    uint32
	known  bool
	cgroup uint64
}

func (h *Host) owner(s *sockdiag.Socket) owner {
	if !owned(s) {
		return owner{}
	}
	o := owner{uid: s.UID, known: true, cgroup: s.CgroupID}
	if holders := h.Holders[s.Inode]; len(holders) > 0 {
		o.pid = holders[0].Process.PID
	}
	return o
}

// ownerText names the owner of a row.
func (h *Host) ownerText(s *sockdiag.Socket) string {
	holders := h.Holders[s.Inode]
	switch {
	case !owned(s):
		return "no process"
	case len(holders) > 0:
		return processText(holders[0].Process)
	case s.Has(sockdiag.FieldCgroup):
		return fmt.Sprintf("user %d, cgroup %d", s.UID, s.CgroupID)
	}
	return fmt.Sprintf("user %d", s.UID)
}

func processText(p sockdiag.Process) string {
	return fmt.Sprintf("process %d (%s)", p.PID, p.Command)
}

// evidenceOf is how many rows a Finding about many shows.
const evidenceOf = 3
