package reject

import (
	"github.com/connsleuth/connsleuth/detect/packet"
)

// recent remembers the last values put, up to a limit.
type recent[K comparable, V any] struct {
	max   int
	by    map[K]dated[V]
	order []K // a ring once it is full
	next  int
}

// dated is a value and its key's last place in the ring.
type dated[V any] struct {
	value V
	place int
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{max: limit, by: make(map[K]dated[V])}
}

func (r *recent[K, V]) put(k K, v V) {
	if len(r.order) < r.max {
		r.order = append(r.order, k)
	} else {
		if old := r.order[r.next]; r.by[old].place == r.next { // not put again since
			delete(r.by, old)
		}
		r.order[r.next] = k
	}
	r.by[k] = dated[V]{v, r.next}
	r.next = (r.next + 1) % r.max
}

func (r *recent[K, V]) get(k K) (V, bool) {
	d, ok := r.by[k]
	return d.value, ok
}

// reasonKey tells the packet that a reason is about.
type reasonKey struct {
	flow  flowKey
	seq   uint32
	flags packet.TCPFlags
}

func reasonKeyOf(h *packet.Header) reasonKey { return reasonKey{keyOf(h), h.Seq, h.Flags} }
