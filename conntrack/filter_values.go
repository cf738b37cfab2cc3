package conntrack

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	protoWords  = "icmp, tcp, udp, dccp, gre, icmpv6, sctp, udplite, or a number from 1 to 255"
	stateWords  = "states joined by commas, such as SYN_SENT, ESTABLISHED, CLOSE_WAIT, !TIME_WAIT"
	statusWords = "words joined by commas: EXPECTED, SEEN_REPLY, UNREPLIED, ASSURED, CONFIRMED, SRC_NAT, DST_NAT, " +
		"SEQ_ADJUST, SRC_NAT_DONE, DST_NAT_DONE, DYING, FIXED_TIMEOUT, TEMPLATE, UNTRACKED, HELPER, OFFLOAD, " +
		"HW_OFFLOAD, or bits as a number; !WORD asks for those without"
)

func parseFamily(f *Filter, s string) error {
	switch s {
	case "ipv4":
		f.IPv4Only = true
	case "ipv6":
		f.IPv6Only = true
	default:
		return errors.New("no family")
	}
	return nil
}

func parseProto(f *Filter, s string) error {
	if p, ok := protoOf(s); ok {
		f.Proto = p
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 {
		return errors.New("no protocol")
	}
	f.Proto = Proto(n)
	return nil
}

func protoOf(name string) (Proto, bool) {
	for p := range Proto(math.MaxUint8) {
		if p.name() == name {
			return p, name != "unknown"
		}
	}
	return 0, false
}

func parsePrefix(to *netip.Prefix, s string) error {
	p, err := netip.ParsePrefix(s)
	if addr, err2 := netip.ParseAddr(s); err2 == nil && addr.Zone() == "" {
		p, err = addr.Prefix(addr.BitLen())
	}
	if err != nil {
		return errors.New("no IP address or prefix")
	}
	*to = unmapped(p).Masked()
	return nil
}

func parsePorts(to *PortRange, s string) error {
	first, last, isRange := strings.Cut(s, ":")
	if isRange && last == "" {
		last = "65535"
	}
	var r PortRange
	for _, part := range []struct {
		text  string
		to    *uint16
		asked bool
	}{{first, &r.First, !isRange || first != ""}, {last, &r.Last, isRange}} {
		if !part.asked {
			continue
		}
		n, err := strconv.ParseUint(part.text, 10, 16)
		if err != nil {
			return errors.New("no port")
		}
		*part.to = uint16(n)
	}
	switch {
	case r.Last == 0 && (isRange || r.First == 0):
		return errors.New("port 0 alone cannot be asked for")
	case isRange && r.First > r.Last:
		return errors.New("the range ends before it begins")
	}
	*to = r
	return nil
}

func parseNumber[N uint8 | uint16 | uint32](to *N, s string) error {
	n, err := parseUint(s)
	switch {
	case err != nil || n > uint64(^N(0)):
		return errors.New("no such number")
	case n == 0:
		return errors.New("0 cannot be asked for")
	}
	*to = N(n)
	return nil
}

// parseUint reads a number in decimal or, after 0x, in hexadecimal.
func parseUint(s string) (uint64, error) {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		return strconv.ParseUint(hex, 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}

// parseRange reads bounds of which 0 is none.
func parseRange[N cmp.Ordered](low, high *N, s string, parse func(string) (N, error)) error {
	first, last, isRange := strings.Cut(s, ":")
	var none, from, to N
	var err1, err2 error
	if first != "" || !isRange {
		from, err1 = parse(first)
	}
	if to = from; isRange {
		to = none
	}
	if last != "" {
		to, err2 = parse(last)
	}
	switch {
	case err1 != nil || err2 != nil:
		return errors.New("no number or range")
	case from < none || to < none || to == none && (last != "" || !isRange) || from == none && to == none:
		return errors.New("0 and less cannot be asked for")
	case to != none && to < from:
		return errors.New("the range ends before it begins")
	}
	*low, *high = from, to
	return nil
}

func parseTimeout(f *Filter, s string) error {
	return parseRange(&f.MinTimeout, &f.MaxTimeout, s, func(s string) (time.Duration, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return time.ParseDuration(s)
		}
		return time.Duration(n) * time.Second, nil
	})
}

func parseStates(f *Filter, s string) error {
	switch f.Proto {
	case 0, ProtoTCP:
		return parseStateSet(&f.TCPStates, s, TCPSynSent2, ParseTCPState)
	case ProtoSCTP:
		return parseStateSet(&f.SCTPStates, s, SCTPHeartbeatAcked, ParseSCTPState)
	}
	return fmt.Errorf("%v has no states to ask for: tcp and sctp have", f.Proto)
}

// parseStateSet adds states; those after a ! are taken from all.
func parseStateSet[Set ~uint16, S ~uint8](to *Set, s string, last S, parse func(string) (S, bool)) error {
	var set, not Set
	for name := range strings.SplitSeq(s, ",") {
		bare, negated := strings.CutPrefix(name, "!")
		state, ok := parse(bare)
		switch {
		case !ok:
			return fmt.Errorf("%q is no state of conntrack", bare)
		case negated:
			not |= 1 << state
		default:
			set |= 1 << state
		}
	}
	if not != 0 {
		all := Set(1)<<(last+1) - 1
		set |= all &^ not
	}
	*to |= set
	return nil
}

func parseStatus(f *Filter, s string) error {
	for name := range strings.SplitSeq(s, ",") {
		bare, unset := strings.CutPrefix(name, "!")
		if bare == "UNREPLIED" {
			bare, unset = "SEEN_REPLY", !unset
		}
		bits, ok := statusOf(bare)
		switch {
		case !ok:
			return fmt.Errorf("%q is no status", bare)
		case unset:
			f.StatusUnset |= bits
		default:
			f.StatusSet |= bits
		}
	}
	return nil
}

func statusOf(name string) (Status, bool) {
	if i := slices.Index(statusNames[:], name); i >= 0 {
		return 1 << i, true
	}
	n, err := parseUint(name)
	return Status(n), err == nil && n != 0 && n <= math.MaxUint32
}

func parseMark(f *Filter, s string) error {
	value, mask, masked := strings.Cut(s, "/")
	mark, err := parseUint(value)
	bits := uint64(0)
	if masked && err == nil {
		bits, err = parseUint(mask)
	}
	switch {
	case err != nil || mark > math.MaxUint32 || bits > math.MaxUint32:
		return errors.New("no mark")
	case masked && bits == 0:
		return errors.New("a mask of 0 looks at no bit")
	case mark == 0 && !masked:
		bits = math.MaxUint32
	}
	f.Mark, f.MarkMask = uint32(mark), uint32(bits)
	return nil
}

func parseZone(f *Filter, s string) error {
	n, err := strconv.ParseUint(s, 0, 16)
	if err != nil {
		return errors.New("no zone")
	}
	f.Zone, f.InZone = uint16(n), n == 0
	return nil
}

func parseLabelOption(f *Filter, s string) error {
	labels, err := parseLabels(s)
	for i, b := range labels {
		f.Labels[i] |= b
	}
	return err
}

func parseHelper(f *Filter, s string) error {
	f.Helper = s
	return nil
}
