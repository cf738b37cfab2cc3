package reject

import (
	"fmt"
	"strings"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// The tables of an Install, in the family inet: the first has the rules and goes
// with its owner; the second has nothing but a comment, which says what the
// sysctls were, and survives a crash.
const (
	watchTable   = "connsleuth"
	restoreTable = "connsleuth-restore"
)

// Prefixes of what the rules log. The state follows the first.
const (
	ownPrefix    = "connsleuth "
	prefixBefore = ownPrefix + "before "
	prefixAfter  = ownPrefix + "after"
	prefixICMP   = ownPrefix + "icmp"
	prefixReset  = ownPrefix + "reset"
)

// Bytes that are logged of a packet: its headers with all options, and for an
// ICMP error those of the packet it quotes.
const (
	packetBytes = 128
	errorBytes  = 192
)

// Where the rules stand: before those of iptables and of firewalls, of which
// some have priorities about that of their kind, and after them; but, in output,
// behind conntrack and the change of destination (-100), and in all before ipvs,
// which takes packets away at 98.
const (
	firstPriority  int32 = -1000
	outputPriority int32 = -99
	lastPriority   int32 = 90
)

var installHooks = []struct {
	hook   nft.Hook
	before int32
}{{nft.Input, firstPriority}, {nft.Forward, firstPriority}, {nft.Output, outputPriority}}

// installTable is the table that logs to the group and traces so many packets a
// second at each hook.
func installTable(group uint16, traces int, comment string) nft.Table {
	t := nft.Table{Family: nft.INet, Name: watchTable, Comment: comment}
	for _, at := range installHooks {
		rules := beforeRules(group, at.hook)
		if traces > 0 {
			rules = append(rules, nft.Rule{
				CTState: nft.New | nft.Invalid | nft.Untracked,
				Limit:   nft.Limit{PerSecond: uint64(traces), Burst: uint32(traces)}, Trace: true,
			})
		}
		t.Chains = append(t.Chains,
			nft.Chain{Name: at.hook.String() + "-before", Hook: at.hook, Priority: at.before, Rules: rules},
			nft.Chain{Name: at.hook.String() + "-after", Hook: at.hook, Priority: lastPriority, Rules: []nft.Rule{
				{CTState: nft.New | nft.Invalid, Log: &nft.Log{Group: group, Prefix: prefixAfter, Snaplen: packetBytes}},
				untrackedSYN(&nft.Log{Group: group, Prefix: prefixAfter, Snaplen: packetBytes}),
			}})
	}
	return t
}

func beforeRules(group uint16, hook nft.Hook) []nft.Rule {
	log := func(prefix string, n uint32) *nft.Log { return &nft.Log{Group: group, Prefix: prefix, Snaplen: n} }
	rules := []nft.Rule{
		{Proto: nft.ICMP, ICMPType: nft.ICMPUnreachable, Log: log(prefixICMP, errorBytes)},
		{Proto: nft.ICMPv6, ICMPType: nft.ICMPv6Unreachable, Log: log(prefixICMP, errorBytes)},
	}
	if hook == nft.Output {
		rules = append(rules, nft.Rule{
			Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Log: log(prefixReset, packetBytes),
		})
	}
	return append(rules,
		nft.Rule{CTState: nft.New, Log: log(prefixBefore+"new", packetBytes)},
		nft.Rule{CTState: nft.Invalid, Log: log(prefixBefore+"invalid", packetBytes)},
		untrackedSYN(log(prefixBefore+"untracked", packetBytes)))
}

// untrackedSYN logs the packets that make a connection which is not tracked. All
// others would be too many.
func untrackedSYN(log *nft.Log) nft.Rule {
	return nft.Rule{
		CTState: nft.Untracked, Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.SYN, Value: nft.SYN}, Log: log,
	}
}

// tableText writes a table of installTable as nft(8) lists it where it vanishes
// with its owner.
func tableText(t nft.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %v %s {\n\tflags owner\n\tcomment %q\n", t.Family, t.Name, t.Comment)
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\n\tchain %s {\n\t\ttype filter hook %v priority %d; policy accept;\n", c.Name, c.Hook, c.Priority)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", ruleText(r))
		}
		b.WriteString("\t}\n")
	}
	return b.String() + "}\n"
}

func ruleText(r nft.Rule) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch r.TCPFlags.Value {
	case nft.RST:
		add("tcp flags & rst == rst")
	case nft.SYN:
		add("tcp flags & syn == syn")
	}
	switch r.Proto {
	case nft.ICMP:
		add("icmp type destination-unreachable")
	case nft.ICMPv6:
		add("icmpv6 type destination-unreachable")
	}
	if r.CTState != 0 {
		add("ct state %s", stateWords(r.CTState))
	}
	if r.Limit.PerSecond != 0 {
		add("limit rate %d/second burst %d packets", r.Limit.PerSecond, r.Limit.Burst)
	}
	if r.Log != nil {
		add("log prefix %q group %d snaplen %d", r.Log.Prefix, r.Log.Group, r.Log.Snaplen)
	}
	if r.Trace {
		add("meta nftrace set 1")
	}
	return strings.Join(words, " ")
}

// stateWords lists states in nft's order.
func stateWords(s nft.CTState) string {
	var words []string
	for _, w := range []struct {
		state nft.CTState
		word  string
	}{{nft.Invalid, "invalid"}, {nft.New, "new"}, {nft.Untracked, "untracked"}} {
		if s&w.state != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}
