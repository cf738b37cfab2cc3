package sockdiag

import "encoding/binary"

// index tells where in a slice sockets are by their cookie, in 12 bytes a
// socket: a Go map takes three times that and as often longer. It is an
// open-addressing table, each slot the low half of a key in its upper half
// and the place plus 1 in its lower; 0 is a free slot.
type index []uint64

// newIndex makes an index of n sockets at most: a third of its slots stays free.
func newIndex(n int) index { return make(index, n+n/2+1) }

// indexOf makes the index of sockets that are all different.
func indexOf(sockets []Socket) index {
	x := newIndex(len(sockets))
	for i := range sockets {
		x.put(sockets[:i], &sockets[i])
	}
	return x
}

// put returns the row that is the same socket as s. If there is none, s is
// noted to be the next after sockets.
func (x index) put(sockets []Socket, s *Socket) *Socket {
	at, place := x.find(sockets, s)
	if place >= 0 {
		return &sockets[place]
	}
	x[at] = key(s)<<32 | uint64(len(sockets)+1)
	return nil
}

// find returns the place of the row that is the same socket as s; or, if that
// is negative, the slot where it would be noted.
func (x index) find(sockets []Socket, s *Socket) (slot, place int) {
	k := key(s)
	for at := x.start(k); ; at = (at + 1) % len(x) {
		if x[at] == 0 {
			return at, -1
		}
		if place := int(uint32(x[at])) - 1; uint32(x[at]>>32) == uint32(k) && sameSocket(&sockets[place], s) {
			return at, place
		}
	}
}

const golden = 0x9e3779b97f4a7c15 // 2^64 / φ

// start is the slot to begin at. It spreads cookies, which each processor
// takes in runs (gen_cookie_next).
func (x index) start(key uint64) int {
	return int(key * golden >> 32 * uint64(len(x)) >> 32)
}

// key is the cookie, and for an association of SCTP where it leads, too: all of
// an endpoint have its cookie.
func key(s *Socket) uint64 {
	if !s.Has(FieldAssociation) {
		return s.Cookie
	}
	a := s.Remote.Addr().As16()
	return s.Cookie + (binary.NativeEndian.Uint64(a[8:])^uint64(s.Remote.Port()))*golden
}

// sameSocket reports whether two rows are of one socket, or of one association.
func sameSocket(a, b *Socket) bool {
	const which = FieldAssociation
	return a.Cookie == b.Cookie && a.Fields&which == b.Fields&which &&
		(a.Fields&which == 0 || a.Remote == b.Remote)
}
