package nft

// The most the kernel sends of a traced packet
// (NFT_TRACETYPE_NETWORK_HSIZE, NFT_TRACETYPE_TRANSPORT_HSIZE).
const (
	maxNetwork   = 40
	maxTransport = 20
)

// Headers is the begin of a packet: up to 40 bytes of its network header and up
// to 20 of what follows. The zero Headers is none.
type Headers struct {
	b    [maxNetwork + maxTransport]byte
	n, t uint8 // bytes of the network header, at 0, and of the transport header, at maxNetwork
}

func (h *Headers) setNetwork(b []byte) { h.n = uint8(copy(h.b[:maxNetwork], b)) }

func (h *Headers) setTransport(b []byte) { h.t = uint8(copy(h.b[maxNetwork:], b)) }

// Network returns what is there of the IPv4 or IPv6 header.
func (h *Headers) Network() []byte { return h.b[:h.n] }

// Transport returns what is there of the TCP, UDP or other header, and of the
// payload if that is short.
func (h *Headers) Transport() []byte { return h.b[maxNetwork : maxNetwork+int(h.t)] }

// AppendPacket appends the packet as far as it is there, from its network
// header on, and reports whether it could: not when there is nothing, and not
// when bytes are missing in between, as of IPv6 extension headers and of more
// than 20 bytes of IPv4 options.
func (h *Headers) AppendPacket(b []byte) ([]byte, bool) {
	if !h.joined() {
		return b, false
	}
	return append(append(b, h.Network()...), h.Transport()...), true
}

// joined reports that the transport header follows the network header.
func (h *Headers) joined() bool {
	switch {
	case h.n >= 20 && h.b[0]>>4 == 4:
		return int(h.b[0]&0xf)*4 == int(h.n)
	case h.n == 40 && h.b[0]>>4 == 6:
		return !isExtension(h.b[6])
	}
	return false
}

// isExtension reports whether a next header (IPPROTO_*) is an IPv6 extension
// header that the kernel skips on its way to the transport header: hop-by-hop
// options, routing, fragment, authentication, destination options.
func isExtension(next uint8) bool {
	switch next {
	case 0, 43, 44, 51, 60:
		return true
	}
	return false
}
