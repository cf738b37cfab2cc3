package nft

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// kind is what one set holds: the prefixes of one length of one family.
type kind struct {
	six  bool
	bits uint8
}

// always are the sets that are there from the beginning.
var always = []kind{{false, 32}, {true, 128}, {true, 64}}

func kindOf(p netip.Prefix) kind { return kind{p.Addr().Is6(), uint8(p.Bits())} }

// String is the name of the set.
func (k kind) String() string {
	if k.six {
		return fmt.Sprintf("ipv6_%d", k.bits)
	}
	return fmt.Sprintf("ipv4_%d", k.bits)
}

// parseKind is the reverse of String.
func parseKind(set string) (k kind, ok bool) {
	family, bits, _ := strings.Cut(set, "_")
	n, err := strconv.ParseUint(bits, 10, 8)
	k = kind{family == "ipv6", uint8(n)}
	return k, err == nil && n > 0 && int(n) <= 8*k.size() && k.String() == set
}

func (k kind) before(l kind) int {
	switch {
	case k == l:
		return 0
	case !k.six && l.six, k.six == l.six && k.bits > l.bits:
		return -1
	}
	return 1
}

// size is that of an address, in bytes.
func (k kind) size() int {
	if k.six {
		return 16
	}
	return 4
}

func (k kind) mask() []byte { return net.CIDRMask(int(k.bits), 8*k.size()) }

// host reports that an address is looked up as it is.
func (k kind) host() bool { return int(k.bits) == 8*k.size() }

// prefix is that of an element's key.
func (k kind) prefix(key []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(key)
	p := netip.PrefixFrom(a, int(k.bits))
	return p, ok && len(key) == k.size() && p == p.Masked() && !a.Is4In6()
}
