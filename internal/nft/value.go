package nft

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Values as nft(8) writes them.

func decimal(b []byte) string       { return strconv.FormatUint(network(b), 10) }
func nativeDecimal(b []byte) string { return strconv.FormatUint(native(b), 10) }
func markText(b []byte) string      { return fmt.Sprintf("0x%08x", native(b)) }
func protoText(b []byte) string     { return named(protoNames, network(b)) }
func etherText(b []byte) string     { return named(etherTypes, network(b)) }
func icmpText(b []byte) string      { return named(icmpTypes, network(b)) }
func icmp6Text(b []byte) string     { return named(icmp6Types, network(b)) }
func flagsText(b []byte) string     { return bitsText(flagBits, network(b), " | ") }
func hardwareText(b []byte) string  { return net.HardwareAddr(b).String() }

func hexText(b []byte) string {
	s := strings.TrimLeft(hex.EncodeToString(b), "0")
	if s == "" {
		s = "0"
	}
	return "0x" + s
}

func addrText(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return hexText(b)
}

// indexText knows that lo is always interface 1. The names of others are not
// in the rule.
func indexText(b []byte) string {
	if i := native(b); i != 1 {
		return strconv.FormatUint(i, 10)
	}
	return `"lo"`
}

// nameText is a name, or the begin of names if its NUL is not there.
func nameText(b []byte) string {
	if before, _, ok := bytes.Cut(b, []byte{0}); ok {
		return quote(string(before))
	}
	return quote(string(b) + "*")
}

func quote(s string) string { return `"` + s + `"` }

func named(names map[uint64]string, v uint64) string {
	if s, ok := names[v]; ok {
		return s
	}
	return strconv.FormatUint(v, 10)
}

func nameOr(names []string, v uint64) string {
	if s := nameOf(names, v); s != "" {
		return s
	}
	return strconv.FormatUint(v, 10)
}

// bitsText names the bits that are set; those without a name are a number.
func bitsText(names []bit, v uint64, glue string) string {
	var words []string
	for _, n := range names {
		if v&n.mask != 0 {
			words = append(words, n.name)
			v &^= n.mask
		}
	}
	if v != 0 || len(words) == 0 {
		words = append(words, fmt.Sprintf("0x%x", v))
	}
	return strings.Join(words, glue)
}

// swapped turns a number of the host's byte order into one of the network's, and
// back.
func swapped(b []byte) []byte {
	b = slices.Clone(b)
	if native([]byte{1, 0}) == 1 {
		slices.Reverse(b)
	}
	return b
}

// prefixLen is the number of leading ones, if all others are zeros.
func prefixLen(mask []byte) (n int, ok bool) {
	for i, b := range mask {
		ones := bits.LeadingZeros8(^b)
		n += ones
		if ones == 8 {
			continue
		}
		return n, b<<ones == 0 && len(bytes.TrimRight(mask[i+1:], "\x00")) == 0
	}
	return n, true
}

// prefixText is an address of which only the begin matters.
func prefixText(b []byte, size, length int) string {
	full := make([]byte, size)
	copy(full, b)
	return addrText(full) + "/" + strconv.Itoa(length)
}

// duration is a time in milliseconds, as 1d2h3m4s5ms.
func duration(ms uint64) string {
	var s strings.Builder
	for _, u := range []struct {
		ms   uint64
		name string
	}{{86_400_000, "d"}, {3_600_000, "h"}, {60_000, "m"}, {1000, "s"}, {1, "ms"}} {
		if n := ms / u.ms; n != 0 {
			fmt.Fprintf(&s, "%d%s", n, u.name)
			ms %= u.ms
		}
	}
	if s.Len() == 0 {
		return "0s"
	}
	return s.String()
}

// bytesText is a number of bytes in the largest unit that divides it.
func bytesText(n uint64) string {
	for _, unit := range []string{"bytes", "kbytes", "mbytes"} {
		if n == 0 || n%1024 != 0 || unit == "mbytes" {
			return strconv.FormatUint(n, 10) + " " + unit
		}
		n /= 1024
	}
	return ""
}
