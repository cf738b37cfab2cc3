package detect

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Sources says whose connections count, and what is one source. The zero
// Sources is everybody's, on all ports that listen.
type Sources struct {
	// Ports are the local ports of the services to look at; none is all.
	Ports []uint16
	// Allow are addresses that may do as they like, such as a database. A
	// network that holds one of them is never named as a whole.
	Allow []netip.Prefix
	// IPv4 and IPv6 are the lengths of the prefix that is one source; 0 is 32
	// and 64.
	IPv4, IPv6 int
	// WideIPv4 and WideIPv6 are the lengths of the prefix that is named in
	// place of its sources when Many of them exceed half of the limit; 0 is 24
	// and 48.
	WideIPv4, WideIPv6 int
	// Many is how many sources make a network one offender; 0 is 8, and less
	// than 0 is never.
	Many int
}

func (o *Sources) bits(is4 bool) int {
	if is4 {
		return min(cmp.Or(max(o.IPv4, 0), 32), 32)
	}
	return min(cmp.Or(max(o.IPv6, 0), 64), 128)
}

func (o *Sources) wideBits(is4 bool) int {
	if is4 {
		return min(cmp.Or(max(o.WideIPv4, 0), 24), o.bits(true))
	}
	return min(cmp.Or(max(o.WideIPv6, 0), 48), o.bits(false))
}

// source returns the source that an address belongs to.
func (o *Sources) source(a netip.Addr) source {
	if o.IPv4 == 0 && o.IPv6 == 0 {
		return sourceOf(a)
	}
	is4 := a.Is4() || a.Is4In6()
	s := source(a.As16())
	s.mask(is4, o.bits(is4))
	return s
}

// wide returns the network that a source belongs to.
func (o *Sources) wide(s source) source {
	is4 := s.is4()
	s.mask(is4, o.wideBits(is4))
	return s
}

func (o *Sources) prefix(s source) netip.Prefix {
	return netip.PrefixFrom(s.addr(), o.bits(s.is4()))
}

func (o *Sources) widePrefix(s source) netip.Prefix {
	return netip.PrefixFrom(s.addr(), o.wideBits(s.is4()))
}

// many is the limit on sources of one network.
func (o *Sources) many() int { return cmp.Or(o.Many, 8) }

// allows reports whether connections of the address do not count.
func (o *Sources) allows(a netip.Addr) bool { return inAny(o.Allow, a) }

// holdsAllowed reports whether a ban of the prefix would hit an allowed
// address.
func (o *Sources) holdsAllowed(p netip.Prefix) bool {
	return slices.ContainsFunc(o.Allow, p.Overlaps)
}

// wants reports whether a connection to a port counts.
func (o *Sources) wants(port uint16) bool {
	return len(o.Ports) == 0 || slices.Contains(o.Ports, port)
}

// source is the first address of a source, IPv4 as IPv4-mapped. It takes 16
// bytes where netip.Addr takes 24, and holds no pointer.
type source [16]byte

// sourceOf returns the source of an address by default: a /32 or a /64.
func sourceOf(a netip.Addr) source {
	s := source(a.As16())
	if !a.Is4() && !a.Is4In6() {
		clear(s[8:])
	}
	return s
}

// prefix is that of a source by default.
func (s source) prefix() netip.Prefix {
	var o Sources
	return o.prefix(s)
}

func (s source) addr() netip.Addr { return netip.AddrFrom16(s).Unmap() }
func (s source) is4() bool        { return netip.AddrFrom16(s).Is4In6() }

// mask clears all but the first bits of the address.
func (s *source) mask(is4 bool, bits int) {
	if is4 {
		bits += 96
	}
	hi, lo := binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:])
	hi &= ^uint64(0) << max(64-bits, 0)
	lo &= ^uint64(0) << min(128-bits, 64)
	binary.BigEndian.PutUint64(s[:8], hi)
	binary.BigEndian.PutUint64(s[8:], lo)
}

// sourceKey is what connections are counted by: 20 bytes.
type sourceKey struct {
	source source
	port   uint16
	kind   uint16 // fits uint8
}

// Marks in a kind.
const (
	outgoing = 0x80 // looks like a connection of the host's own
	through  = 0x40 // passes through the host
)

// of returns the kind without marks.
func (k sourceKey) of() uint8 { return uint8(k.kind) &^ (outgoing | through) }

// gathering counts the connections that come in, by source, port and kind.
type gathering struct {
	*Sources
	host      *Host
	counts    tally
	kinds     uint64 // those counted, without marks: 1<<kind
	listening map[uint16]bool
	own       ownAddrs
	last      netip.Addr // of own
	sockets   bool       // a socket was seen
	limit     func(kind uint8) uint64
	kept      map[sourceKey]int // of rows
	rows      []sockdiag.Socket
}

// evidenceRows is how many rows a gathering keeps in all.
const evidenceRows = 256

func (o *Sources) gather(h *Host, limit func(kind uint8) uint64) *gathering {
	return &gathering{
		Sources: o, host: h, counts: tally{seed: newSeed()}, limit: limit, kept: make(map[sourceKey]int),
		listening: make(map[uint16]bool), own: newOwnAddrs(h),
	}
}

// see notes what a socket tells of the host.
func (g *gathering) see(s *sockdiag.Socket) {
	g.sockets = true
	if s.State == sockdiag.Listen {
		g.listening[s.Local.Port()] = true
	} else if local := s.Local.Addr(); local != g.last {
		g.own.add(local)
		g.last = local
	}
}

// socket counts a connection, unless it is one of the host to itself.
func (g *gathering) socket(s *sockdiag.Socket, kind uint8) {
	local, remote := s.Local.Addr(), s.Remote.Addr().Unmap()
	if !g.wants(s.Local.Port()) || !foreign(remote) || remote == local.Unmap() || g.allows(remote) {
		return
	}
	if s.Local.Port() > s.Remote.Port() {
		kind |= outgoing
	}
	k := sourceKey{source: g.source(remote), port: s.Local.Port(), kind: uint16(kind)}
	n := g.counts.add(k)
	g.kinds |= 1 << k.of()
	if uint64(n) == g.limit(k.of())/2+1 && len(g.rows) < evidenceRows {
		g.kept[k] = len(g.rows)
		g.rows = append(g.rows, *s)
	}
}

// foreign reports whether an address can be that of another host.
func foreign(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() }

// forwarded reports whether a flow passes through this host, or is to be
// counted because there are no sockets: the sockets tell of its own. Flows
// whose source is translated are those of clients behind this host.
func (g *gathering) forwarded(f *conntrack.Flow) bool {
	t := &f.Original
	if !shows(f, conntrack.FieldTCP) || g.own.has(t.Src) || !foreign(t.Src) || g.sockets && g.own.has(f.Reply.Src) {
		return false
	}
	return f.Reply.Dst == t.Src
}

// flow counts a forwarded connection.
func (g *gathering) flow(f *conntrack.Flow, kind uint8) {
	t := &f.Original
	if g.wants(t.DstPort) && !g.allows(t.Src) {
		g.counts.add(sourceKey{source: g.source(t.Src), port: t.DstPort, kind: uint16(kind | through)})
		g.kinds |= 1 << kind
	}
}

// incoming reports whether the connections of a key came from outside: their
// port listens, or, when no listener was seen, is below the other.
func (g *gathering) incoming(k sourceKey) bool {
	if len(g.Ports) > 0 || k.kind&through != 0 {
		return true
	}
	if len(g.listening) > 0 {
		return g.listening[k.port]
	}
	return k.kind&outgoing == 0
}

// load is what one source, or one network, has.
type load struct {
	source  source
	count   uint64
	sources int    // 0: it is a single source
	over    int    // of sources, how many exceed the limit
	most    uint64 // connections on port
	port    uint16
	ports   int
	here    bool // some end at this host
}

func (l *load) add(n uint64, port uint16) {
	l.count += n
	l.ports++
	if n > l.most || n == l.most && port < l.port {
		l.most, l.port = n, port
	}
}

// totals returns the counts of the keys that pass, by source.
func (g *gathering) totals(pass func(sourceKey) bool) map[source]uint64 {
	all := make(map[source]uint64)
	for k, n := range g.counts.all() {
		if pass(k) {
			all[k.source] += uint64(*n)
		}
	}
	return all
}

// loads returns the sources that have more than a number of the keys that pass.
func (g *gathering) loads(pass func(sourceKey) bool, above uint64) map[source]*load {
	totals, ports, all := g.totals(pass), make(map[sourceKey]uint64), make(map[source]*load)
	for k, n := range g.counts.all() {
		if totals[k.source] <= above || !pass(k) {
			continue
		}
		l := all[k.source]
		if l == nil {
			l = &load{source: k.source}
			all[k.source] = l
		}
		l.here = l.here || k.kind&through == 0
		k.kind = 0
		ports[k] += uint64(*n)
	}
	for k, n := range ports {
		all[k.source].add(n, k.port)
	}
	return all
}

// offenders returns who exceeds the limit, the worst first: sources, and in
// their place networks of which many sources exceed half of it.
func (g *gathering) offenders(pass func(sourceKey) bool, limit uint64) []load {
	o, all := g.Sources, g.loads(pass, limit/2)
	nets := o.networks(all, limit)
	var found []load
	for s, l := range all {
		if l.count > limit && nets[o.wide(s)] == nil {
			found = append(found, *l)
		}
	}
	for _, n := range nets {
		found = append(found, *n)
	}
	slices.SortFunc(found, func(a, b load) int {
		return cmp.Or(cmp.Compare(b.count, a.count), slices.Compare(a.source[:], b.source[:]))
	})
	return found
}

// networks returns those that are offenders as a whole, of sources that exceed
// half of the limit.
func (o *Sources) networks(all map[source]*load, limit uint64) map[source]*load {
	nets := make(map[source]*load)
	if o.many() < 0 {
		return nets
	}
	for s, l := range all {
		o.join(nets, s, l, limit)
	}
	for s, n := range nets {
		if n.sources < o.many() || n.count <= limit || o.holdsAllowed(o.widePrefix(s)) {
			delete(nets, s)
		}
	}
	return nets
}

func (o *Sources) join(nets map[source]*load, s source, l *load, limit uint64) {
	w := o.wide(s)
	n := nets[w]
	if n == nil {
		n = &load{source: w}
		nets[w] = n
	}
	n.count += l.count
	n.here = n.here || l.here
	n.sources++
	if l.count > limit {
		n.over++
	}
	if l.most > n.most || l.most == n.most && l.port < n.port {
		n.most, n.port = l.most, l.port
	}
	n.ports = max(n.ports, l.ports)
}

// name returns the prefix of an offender.
func (o *Sources) name(l *load) netip.Prefix {
	if l.sources > 0 {
		return o.widePrefix(l.source)
	}
	return o.prefix(l.source)
}

// evidence returns up to 3 rows of an offender.
func (g *gathering) evidence(l *load, pass func(sourceKey) bool) []sockdiag.Socket {
	var at []int
	for k, i := range g.kept {
		same := k.source == l.source || l.sources > 0 && g.wide(k.source) == l.source
		if same && pass(k) {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	var rows []sockdiag.Socket
	for _, i := range at[:min(len(at), 3)] {
		rows = append(rows, g.rows[i])
	}
	return rows
}

// passing reports that connections only pass through this host: its own sockets were
// seen, and here says that none ends at one.
func (g *gathering) passing(here bool) bool { return g.sockets && !here }

// onServer is what to do where connections only pass.
const onServer = "look on the server: they only pass through this host, and the settings of TCP that help are the server's"

// banFix says how to keep an offender away.
func banFix(p netip.Prefix) string {
	set := "banned6"
	if p.Addr().Is4() {
		set = "banned4"
	}
	return "ban the source, in the set that your rules drop: `nft add element inet filter " + set + " { " + bare(p) +
		" }`; then end what it has: `ss -tK state connected dst " + bare(p) + "`"
}

// bare writes the prefix of a single address without its length.
func bare(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
