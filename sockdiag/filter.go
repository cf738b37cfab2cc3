package sockdiag

import (
	"net/netip"
	"strconv"
	"unique"
)

// Filter is a condition on sockets, made by ParseFilter or by the functions
// that return one. It is comparable and immutable; the zero Filter holds for
// every socket.
//
//	sockdiag.And(
//		sockdiag.Remote(netip.MustParsePrefix("10.0.0.0/8")),
//		sockdiag.LocalPort(sockdiag.GreaterOrEqual, 1024),
//		sockdiag.Not(sockdiag.OfUser(0)),
//	)
//
// What a row does not tell is not known, and a condition on it neither holds
// nor fails: a row without Mark is found neither by HasMark nor by its Not.
type Filter struct{ h unique.Handle[expr] }

// kind is what an expr is about.
type kind uint8

const (
	kindAnd kind = iota + 1 // head and tail; a longer list goes on in tail
	kindOr                  // the same with or
	kindNot                 // head
	kindState
	kindFamily
	kindPort
	kindPrefix
	kindInterface
	kindMark
	kindCgroup
	kindUser
	kindInode
	kindCookie
	kindAutobound
)

// expr is a node of the tree. Equal trees have equal handles.
type expr struct {
	kind       kind
	remote     bool         // kindPort, kindPrefix: which end
	cmp        Comparison   // kindPort
	mask       uint32       // kindMark
	n          uint64       // port, states, family, index, mark or number
	prefix     netip.Prefix // kindPrefix
	path       string       // kindCgroup: as it was written
	head, tail Filter
}

func (e expr) filter() Filter { return Filter{unique.Make(e)} }

// none holds for no socket.
func none() Filter { return InState(0) }

// And holds for the sockets that all of the filters hold for; without any it
// is the zero Filter.
func And(filters ...Filter) Filter {
	return list(kindAnd, filters)
}

// Or holds for the sockets that one of the filters holds for; without any it
// holds for none.
func Or(filters ...Filter) Filter {
	for _, f := range filters {
		if f == (Filter{}) {
			return f
		}
	}
	if len(filters) == 0 {
		return none()
	}
	return list(kindOr, filters)
}

// Not holds where the filter fails.
func Not(f Filter) Filter {
	if f == (Filter{}) {
		return none()
	}
	if e := f.h.Value(); e.kind == kindNot {
		return e.head
	}
	return expr{kind: kindNot, head: f}.filter()
}

// list joins filters, those that are such a list themselves taken apart. The
// zero Filter adds nothing to a conjunction, and Or keeps it away.
func list(k kind, filters []Filter) Filter {
	var flat []Filter
	for _, f := range filters {
		flat = f.appendList(flat, k)
	}
	if len(flat) == 0 {
		return Filter{}
	}
	f := flat[len(flat)-1]
	for i := len(flat) - 2; i >= 0; i-- {
		f = expr{kind: k, head: flat[i], tail: f}.filter()
	}
	return f
}

// appendList appends the members of a list of kind k, or f itself.
func (f Filter) appendList(flat []Filter, k kind) []Filter {
	for f != (Filter{}) {
		e := f.h.Value()
		if e.kind != k {
			return append(flat, f)
		}
		flat, f = append(flat, e.head), e.tail
	}
	return flat
}

// InState holds for the sockets in one of the states. SynRecv and NewSynRecv
// mean both; BoundInactive is shown as Close, and a Query without States whose
// Filter names it asks for such sockets too.
func InState(set StateSet) Filter {
	set &= allStates | 1<<BoundInactive
	if set&pendingStates != 0 {
		set |= pendingStates
	}
	return expr{kind: kindState, n: uint64(set)}.filter()
}

// pendingStates are shown as SynRecv.
const pendingStates StateSet = 1<<SynRecv | 1<<NewSynRecv

// OfFamily holds for the sockets of a family. IPv4 connections of IPv6 sockets
// belong to IPv6.
func OfFamily(f Family) Filter {
	if f != IPv4 && f != IPv6 {
		return none()
	}
	return expr{kind: kindFamily, n: uint64(f)}.filter()
}

// Comparison is how a port is compared.
type Comparison uint8

// The comparisons of ports.
const (
	Equal          Comparison = iota // =
	NotEqual                         // !=
	Less                             // <
	LessOrEqual                      // <=
	Greater                          // >
	GreaterOrEqual                   // >=
)

var comparisonSigns = [...]string{"=", "!=", "<", "<=", ">", ">="}

// String returns the sign: =, !=, <, <=, >, >=.
func (c Comparison) String() string {
	if int(c) < len(comparisonSigns) {
		return comparisonSigns[c]
	}
	return "Comparison(" + strconv.Itoa(int(c)) + ")"
}

// opposites are the comparisons that hold where others fail.
var opposites = [...]Comparison{NotEqual, Equal, GreaterOrEqual, Greater, LessOrEqual, Less}

// LocalPort compares the local port: LocalPort(Less, 1024). A Comparison that
// is none holds for no socket.
func LocalPort(c Comparison, port uint16) Filter { return portFilter(false, c, port) }

// RemotePort compares the remote port, which is 0 without a peer.
func RemotePort(c Comparison, port uint16) Filter { return portFilter(true, c, port) }

func portFilter(remote bool, c Comparison, port uint16) Filter {
	if c > GreaterOrEqual {
		return none()
	}
	return expr{kind: kindPort, remote: remote, cmp: c, n: uint64(port)}.filter()
}

// Local holds for the sockets whose local address is in the prefix. A prefix
// of IPv4 holds the IPv4 connections of IPv6 sockets too; one of IPv6 holds
// those of IPv6 sockets alone, IPv4 connections as ::ffff:0:0/96. An invalid
// prefix holds none.
func Local(p netip.Prefix) Filter { return prefixFilter(false, p) }

// Remote holds for the sockets whose remote address is in the prefix, as Local
// does for the local one. It is unspecified without a peer.
func Remote(p netip.Prefix) Filter { return prefixFilter(true, p) }

func prefixFilter(remote bool, p netip.Prefix) Filter {
	if !p.IsValid() {
		return none()
	}
	return expr{kind: kindPrefix, remote: remote, prefix: p.Masked()}.filter()
}

// OnInterface holds for the sockets bound to an interface, by its index
// (Socket.Interface); 0 holds for those bound to none.
func OnInterface(index uint32) Filter {
	return expr{kind: kindInterface, n: uint64(index)}.filter()
}

// HasMark holds for the sockets whose Mark, masked, is value. To tell marks the
// kernel wants CAP_NET_ADMIN; without it a query with a condition on them is
// fs.ErrPermission.
func HasMark(value, mask uint32) Filter {
	return expr{kind: kindMark, n: uint64(value), mask: mask}.filter()
}

// InCgroup holds for the sockets of the cgroup with an ID (Socket.CgroupID),
// without those of the cgroups under it. Before Linux 5.8 it holds for none.
func InCgroup(id uint64) Filter { return cgroupFilter(id, "") }

func cgroupFilter(id uint64, path string) Filter {
	return expr{kind: kindCgroup, n: id, path: path}.filter()
}

// OfUser holds for the sockets of a user. The user of sockets without an owner
// is not known: see Socket.HasOwner.
func OfUser(uid uint32) Filter { return expr{kind: kindUser, n: uint64(uid)}.filter() }

// HasInode holds for the sockets with an inode number; 0 for those without an
// owner.
func HasInode(inode uint32) Filter { return expr{kind: kindInode, n: uint64(inode)}.filter() }

// HasCookie holds for the socket with a cookie.
func HasCookie(cookie uint64) Filter { return expr{kind: kindCookie, n: cookie}.filter() }

// IsAutobound holds for the sockets whose local port the kernel chose, as far
// as that can be told. A row tells the port alone: it must be one the kernel
// chooses from by default, 32768 to 60999 (net.ipv4.ip_local_port_range). In a
// Query the kernel is asked too, and leaves out the sockets that bind(2) gave
// such a port; neither IsAutobound nor its Not finds those.
func IsAutobound() Filter { return expr{kind: kindAutobound}.filter() }

// The default of net.ipv4.ip_local_port_range.
const firstEphemeral, lastEphemeral = 32768, 60999
