package conntrack

import (
	"maps"
	"net/netip"
	"strconv"
)

// Service is where connections go: a protocol and the destination port of the
// original direction, 0 for protocols without ports.
type Service struct {
	Proto Proto
	Port  uint16
}

// String returns "tcp/443".
func (s Service) String() string { return s.Proto.String() + "/" + strconv.Itoa(int(s.Port)) }

// mirrorCounts are kept as entries come and go. A key without entries is not
// there.
type mirrorCounts struct {
	states   map[TCPState]int
	sources  map[netip.Addr]int
	services map[Service]int
}

func newMirrorCounts() mirrorCounts {
	return mirrorCounts{make(map[TCPState]int), make(map[netip.Addr]int), make(map[Service]int)}
}

func (c *mirrorCounts) add(k *flowKey, by int) {
	t := k.tuple()
	tally(c.sources, t.Src, by)
	tally(c.services, Service{t.Proto, t.DstPort}, by)
}

func (c *mirrorCounts) state(r *mirrorRow, by int) {
	if r.fields&FieldTCP != 0 {
		tally(c.states, r.tcp.State, by)
	}
}

func tally[K comparable](m map[K]int, key K, by int) {
	if n := m[key] + by; n != 0 {
		m[key] = n
	} else {
		delete(m, key)
	}
}

// States returns how many TCP entries are in each state. Entries whose state
// was not told are left out, as those that a flow table forwards.
func (m *Mirror) States() map[TCPState]int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.counts.states)
}

// Sources returns how many entries each original source has. It copies them
// all; to ask for one, use FromSource.
func (m *Mirror) Sources() map[netip.Addr]int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.counts.sources)
}

// FromSource returns how many entries have the original source.
func (m *Mirror) FromSource(addr netip.Addr) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.counts.sources[addr]
}

// Services returns how many entries go to each service.
func (m *Mirror) Services() map[Service]int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.counts.services)
}

// ToService returns how many entries go to the service.
func (m *Mirror) ToService(s Service) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.counts.services[s]
}
