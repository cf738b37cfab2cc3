package reject

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Rules, as nft(8) and iptables(8) print them, that look a source up.
var (
	inSet      = regexp.MustCompile(`\bsaddr( \. [^@!=]*)? @([\w-]+)`)
	inIPSet    = regexp.MustCompile(`(! )?(?:--)?match-set ([\w:-]+) src`)
	overLimits = regexp.MustCompile(`\blimit rate over|\bct count over|\bquota over|\bconnlimit-above|\bhashlimit-above|#conn src/\d+ >`)
)

// C30: the rule names the source, in a set or itself.
func isBanned(e *known) bool { return e.here() && !e.leaving() && e.unban() != "" }

// unban is the command that lets the source in again.
func (e *known) unban() string {
	r, src := e.Rule.Value, e.Packet.Value.Src
	if e.Rule.Result != Present {
		return ""
	}
	if m := inSet.FindStringSubmatch(r.Text); m != nil {
		return fmt.Sprintf("nft delete element %s %s %s { %v }", r.Family, r.Table, m[2], src)
	}
	if m := inIPSet.FindStringSubmatch(r.Text); m != nil && m[1] == "" {
		return fmt.Sprintf("ipset del %s %v", m[2], src)
	}
	words := strings.Fields(r.Text)
	for i, w := range words[:max(len(words)-1, 0)] {
		if own := strings.TrimSuffix(strings.TrimSuffix(words[i+1], "/32"), "/128"); (w == "saddr" || w == "-s") && own == src.String() {
			return fmt.Sprintf("nft delete rule %s %s %s handle %d", r.Family, r.Table, r.Chain, r.Handle)
		}
	}
	return ""
}

func explainBanned(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("%v is banned: what it sends is refused whatever it is, by %s", e.Packet.Value.Src, e.rule())
	v.fix("leave it, if the ban is wanted; else `" + e.unban() + "`, and find who bans")
}

// C31
func isOverLimit(e *known) bool {
	return e.here() && e.Rule.Result == Present && overLimits.MatchString(e.Rule.Value.Text)
}

func explainOverLimit(e *known, v *Verdict) {
	v.Confidence = detect.Certain
	v.Summary = fmt.Sprintf("%v is refused for its number, not its kind: a limit is reached; refused by %s", e.Packet.Value, e.rule())
	v.fix("raise the limit, if what it counts is wanted; to see it: "+
		fmt.Sprintf("`nft -a list chain %s %s %s`", e.Rule.Value.Family, e.Rule.Value.Table, e.Rule.Value.Chain),
		fmt.Sprintf("look what %v sends so much of: `conntrack -L -s %[1]v`", e.Packet.Value.Src))
}

// C32: ICMPv6 133 to 137 (RFC 4861). The tracker marks them untracked.
func isDiscovery(e *known) bool {
	t := e.Packet.Value.ICMPType
	return e.here() && e.icmp() && e.proto(packet.ProtoICMPv6) && t >= 133 && t <= 137
}

func explainDiscovery(e *known, v *Verdict) {
	h := e.Packet.Value
	v.Confidence = e.proven()
	v.Summary = fmt.Sprintf("%s from %v is refused: without neighbour discovery, IPv6 on the link does not work",
		packet.ICMPName(true, h.ICMPType, h.ICMPCode), h.Src)
	e.byRule(v)
	v.fix("accept it before anything else: `icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept`")
}

// C33: the tracker puts fragments together; those that are seen are not
// tracked.
func isFragment(e *known) bool { return e.here() && e.Packet.Value.Fragment }

func explainFragment(e *known, v *Verdict) {
	v.Confidence = e.proven()
	v.Summary = fmt.Sprintf("%v: rules that match ports cannot match a fragment, and nobody put it together: it is not tracked",
		e.Packet.Value)
	e.byRule(v)
	v.fix("let it be tracked, which puts fragments together (no `notrack` for this host, no rule before priority -400)",
		"or send smaller packets: look at the MTU of the path, `tracepath -n "+e.Packet.Value.Src.String()+"`",
		"or accept fragments: `ip frag-off & 0x1fff != 0 accept`, `exthdr frag exists accept`")
}

// C22: the tracker knows the connection.
func isRuleOrder(e *known) bool {
	return e.here() && (e.State == Established || e.State == Related || e.State == StateUnknown && (e.reason.Passes() || e.amidst()))
}

// amidst reports a packet of a live connection of which only the answer was
// seen that refused it. A RST of a rule closes the entry (nf_send_reset).
func (e *known) amidst() bool {
	f := &e.Entry.Value
	live := e.side != noSide && f.Has(conntrack.FieldTCP) && !f.Unreplied() && (f.TCP.State == conntrack.TCPEstablished ||
		f.TCP.State == conntrack.TCPClose && e.Refusal == ResetSent && e.socketIn(sockdiag.Established))
	return live && e.goesOn() && e.reason.Kind == ReasonNone
}

func explainRuleOrder(e *known, v *Verdict) {
	v.Confidence = e.proven()
	state := e.State
	switch {
	case state != StateUnknown:
	case e.reason.Passes():
		state = Established
		v.fact("the tracker lets such a packet through as established")
	default:
		state = Established
		v.Confidence = detect.Possible
		v.missing("the packet's conntrack state: an INVALID one can look the same", "nft monitor trace")
	}
	v.Summary = fmt.Sprintf("%v is of a known connection (%v): the rule that refuses it comes before one that accepts those, or there is none",
		e.Packet.Value, state)
	if state == Related && e.opens() {
		v.Summary += "; a helper announced it, so that only the rule for related connections is missing"
	}
	e.byRule(v)
	v.fix("accept what is known before anything is refused: `ct state established,related accept`",
		"look at the chains of the same hook in order of priority, and at what they accept by interface: `nft list ruleset`")
	if e.Rules.Value.Legacy || e.Rules.Result != Present {
		v.fix("iptables-legacy has rules of its own beside nftables: `iptables-legacy-save`")
	}
}

// C23: the packet is exempt from tracking.
func isUntracked(e *known) bool { return e.here() && e.State == Untracked }

func explainUntracked(e *known, v *Verdict) {
	v.Confidence = e.proven()
	v.Summary = fmt.Sprintf("%v is exempt from tracking (notrack), so that no rule for established connections accepts it, and no other does",
		e.Packet.Value)
	switch {
	case e.Rules.Result != Present:
		v.missing("the rule that exempts it", "nft list ruleset")
	case e.Rules.Value.Notrack != "":
		v.fact("exempt by: " + plain(e.Rules.Value.Notrack))
	}
	e.byRule(v)
	v.fix("accept it: `ct state untracked accept`, for this service and both directions",
		"or let it be tracked: remove the `notrack`")
}
