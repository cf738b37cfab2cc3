package conntrack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// option is one part of a Filter as an expression has it.
type option struct {
	// names are those ParseFilter takes; String writes the first.
	names string
	// takes says what its value may be.
	takes string
	// many: it may be given again. bare: its value may be left out.
	many, bare bool
	// print returns its value, and whether it is asked for.
	print func(*Filter) (string, bool)
	// parse sets its value, or says what is wrong with it.
	parse func(*Filter, string) error
	// push tells which part of the request has it, or why none has. nil: the
	// kernel has no filter for it.
	push func(*Filter) (pushed, string)
}

// options are in the order that String writes. ParseFilter looks at -p before
// the others.
var options = []option{
	{names: "-f --family", takes: "ipv4 or ipv6", print: printFamily, parse: parseFamily, push: pushesFamily},
	{names: "-p --proto --protonum", takes: protoWords, print: printProto, parse: parseProto, push: pushesProto},
	prefixOption("-s --src --orig-src", func(f *Filter) *netip.Prefix { return &f.Src }, pushesAddr),
	prefixOption("-d --dst --orig-dst", func(f *Filter) *netip.Prefix { return &f.Dst }, pushesAddr),
	prefixOption("-r --reply-src", func(f *Filter) *netip.Prefix { return &f.ReplySrc }, neverReply[netip.Prefix]),
	prefixOption("-q --reply-dst", func(f *Filter) *netip.Prefix { return &f.ReplyDst }, neverReply[netip.Prefix]),
	prefixOption("--addr", func(f *Filter) *netip.Prefix { return &f.Addr }, nil),
	portOption("--sport --orig-port-src", func(f *Filter) *PortRange { return &f.SrcPort }, pushesPort),
	portOption("--dport --orig-port-dst", func(f *Filter) *PortRange { return &f.DstPort }, pushesPort),
	portOption("--reply-port-src", func(f *Filter) *PortRange { return &f.ReplySrcPort }, neverReply[PortRange]),
	portOption("--reply-port-dst", func(f *Filter) *PortRange { return &f.ReplyDstPort }, neverReply[PortRange]),
	portOption("--port", func(f *Filter) *PortRange { return &f.Port }, nil),
	numberOption("--icmp-type", func(f *Filter) *uint8 { return &f.ICMPType }, neverICMP),
	numberOption("--icmp-code", func(f *Filter) *uint8 { return &f.ICMPCode }, neverICMP),
	numberOption("--icmp-id", func(f *Filter) *uint16 { return &f.ICMPID }, neverICMP),
	{names: "--state", takes: stateWords, many: true, print: printStates, parse: parseStates},
	{names: "-u --status", takes: statusWords, many: true, print: printStatus, parse: parseStatus, push: pushesStatus},
	{names: "-m --mark", takes: "MARK or MARK/MASK, of 32 bits", print: printMark, parse: parseMark, push: pushes(pushMark)},
	{names: "-w --zone", takes: "0 to 65535", print: printZone, parse: parseZone, push: pushes(pushZone)},
	numberOption("--orig-zone", func(f *Filter) *uint16 { return &f.OriginalZone }, nil),
	numberOption("--reply-zone", func(f *Filter) *uint16 { return &f.ReplyZone }, nil),
	{names: "-l --label", takes: "numbers from 0 to 127, joined by commas", many: true, print: printLabels, parse: parseLabelOption},
	{names: "-t --timeout", takes: "T, FROM:TO, FROM: or :TO, in seconds or as 1h30m, above 0", print: printTimeout, parse: parseTimeout},
	amountOption("--packets", func(f *Filter) (low, high *uint64) { return &f.MinPackets, &f.MaxPackets }),
	amountOption("--bytes", func(f *Filter) (low, high *uint64) { return &f.MinBytes, &f.MaxBytes }),
	natOption("-n --src-nat", func(f *Filter) (*bool, *netip.Prefix) { return &f.SourceNAT, &f.SourceNATTo }),
	natOption("-g --dst-nat", func(f *Filter) (*bool, *netip.Prefix) { return &f.DestinationNAT, &f.DestinationNATTo }),
	natOption("-j --any-nat", func(f *Filter) (*bool, *netip.Prefix) { return &f.Translated, &f.TranslatedTo }),
	{names: "--helper", takes: "a helper's name", print: printHelper, parse: parseHelper},
	numberOption("-i --id", func(f *Filter) *uint32 { return &f.ID }, nil),
}

// name is the one that String writes.
func (o *option) name() string {
	name, _, _ := strings.Cut(o.names, " ")
	return name
}

// expr returns the part as an expression; "" if f does not have it.
func (o *option) expr(f *Filter) string {
	value, asked := o.print(f)
	switch {
	case !asked:
		return ""
	case value == "":
		return o.name()
	}
	return o.name() + " " + value
}

// String returns the expression that ParseFilter reads as an equal filter, or
// as one of the same meaning where a filter can be had in several ways. The
// zero Filter is "". Parts that ParseFilter would refuse, such as a prefix that
// is not valid, are written as they are.
func (f Filter) String() string {
	var parts []string
	for i := range options {
		if s := options[i].expr(&f); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, " ")
}

func printFamily(f *Filter) (string, bool) {
	switch {
	case f.IPv4Only && f.IPv6Only:
		return "ipv4 -f ipv6", true
	case f.IPv6Only:
		return "ipv6", true
	}
	return "ipv4", f.IPv4Only
}

func printProto(f *Filter) (string, bool) {
	p := f.Proto
	if p == 0 && f.SCTPStates != 0 { // --state needs to know
		p = ProtoSCTP
	}
	return p.String(), p != 0
}

func printStates(f *Filter) (string, bool) {
	if f.SCTPStates != 0 {
		return f.SCTPStates.String(), true
	}
	return f.TCPStates.String(), f.TCPStates != 0
}

func printStatus(f *Filter) (string, bool) {
	var words []string
	if f.StatusSet != 0 {
		words = strings.Split(f.StatusSet.String(), "|")
	}
	if f.StatusUnset != 0 {
		for word := range strings.SplitSeq(f.StatusUnset.String(), "|") {
			words = append(words, "!"+word)
		}
	}
	return strings.Join(words, ","), len(words) > 0
}

func printMark(f *Filter) (string, bool) {
	if f.MarkMask == 0 {
		return fmt.Sprintf("%#x", f.Mark), f.Mark != 0
	}
	return fmt.Sprintf("%#x/%#x", f.Mark, f.MarkMask), true
}

func printZone(f *Filter) (string, bool) { return fmt.Sprint(f.Zone), f.asksZone() }

func printLabels(f *Filter) (string, bool) { return f.Labels.String(), !f.Labels.IsZero() }

func printTimeout(f *Filter) (string, bool) { return printRange(f.MinTimeout, f.MaxTimeout, seconds) }

// seconds writes whole seconds as the number that conntrack(8) takes.
func seconds(d time.Duration) string {
	if d%time.Second != 0 {
		return d.String()
	}
	return fmt.Sprint(int64(d / time.Second))
}

func printHelper(f *Filter) (string, bool) { return f.Helper, f.Helper != "" }

// printRange writes bounds of which 0 is none.
func printRange[N comparable](low, high N, text func(N) string) (string, bool) {
	var none N
	switch {
	case low == high:
		return text(low), low != none
	case high == none:
		return text(low) + ":", true
	case low == none:
		return ":" + text(high), true
	}
	return text(low) + ":" + text(high), true
}

func printPrefix(p netip.Prefix) (string, bool) {
	if p.IsSingleIP() {
		return p.Addr().String(), true
	}
	return p.String(), p != netip.Prefix{}
}

func prefixOption(names string, field func(*Filter) *netip.Prefix, push func(*Filter, *netip.Prefix) (pushed, string)) option {
	o := option{names: names, takes: "an IP address, or a prefix such as 192.0.2.0/24",
		print: func(f *Filter) (string, bool) { return printPrefix(*field(f)) },
		parse: func(f *Filter, s string) error { return parsePrefix(field(f), s) },
	}
	if push != nil {
		o.push = func(f *Filter) (pushed, string) { return push(f, field(f)) }
	}
	return o
}

func portOption(names string, field func(*Filter) *PortRange, push func(*Filter, *PortRange) (pushed, string)) option {
	o := option{names: names, takes: "PORT, FROM:TO, FROM: or :TO, of 1 to 65535",
		print: func(f *Filter) (string, bool) { return field(f).String(), *field(f) != PortRange{} },
		parse: func(f *Filter, s string) error { return parsePorts(field(f), s) },
	}
	if push != nil {
		o.push = func(f *Filter) (pushed, string) { return push(f, field(f)) }
	}
	return o
}

func numberOption[N uint8 | uint16 | uint32](names string, field func(*Filter) *N, push func(*Filter) (pushed, string)) option {
	return option{names: names, takes: fmt.Sprintf("1 to %d", ^N(0)), push: push,
		print: func(f *Filter) (string, bool) { return fmt.Sprint(*field(f)), *field(f) != 0 },
		parse: func(f *Filter, s string) error { return parseNumber(field(f), s) },
	}
}

func amountOption(names string, fields func(*Filter) (low, high *uint64)) option {
	return option{names: names, takes: "N, FROM:TO, FROM: or :TO, above 0",
		print: func(f *Filter) (string, bool) {
			low, high := fields(f)
			return printRange(*low, *high, func(n uint64) string { return fmt.Sprint(n) })
		},
		parse: func(f *Filter, s string) error {
			low, high := fields(f)
			return parseRange(low, high, s, parseUint)
		},
	}
}

func natOption(names string, fields func(*Filter) (*bool, *netip.Prefix)) option {
	return option{names: names, takes: "nothing, or the IP address or prefix translated to", bare: true,
		print: func(f *Filter) (string, bool) {
			asked, to := fields(f)
			if *to == (netip.Prefix{}) {
				return "", *asked
			}
			return printPrefix(*to)
		},
		parse: func(f *Filter, s string) error {
			asked, to := fields(f)
			if *asked = s == ""; *asked {
				return nil
			}
			return parsePrefix(to, s)
		},
	}
}
