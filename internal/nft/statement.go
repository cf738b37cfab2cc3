package nft

import (
	"fmt"
	"net/netip"
	"strings"
)

// statement writes an expression that does something.
func (l *lister) statement(e *expr) {
	switch e.name {
	case "immediate":
		code, chain, _ := e.verdict(2)
		l.add(strings.TrimSpace(code.String() + " " + chain))
	case "counter":
		l.addf("counter packets %d bytes %d", e.number(2), e.number(1))
	case "limit":
		l.add(limitText(e))
	case "log":
		l.add(logText(e))
	case "reject":
		l.reject(uint32(e.number(1)), uint8(e.number(2)))
	case "notrack":
		l.add("notrack")
	case "masq":
		l.add("masquerade" + portsText(l.regs.get(e.number(2)), l.regs.get(e.number(3)), " to ") + natFlags(e.number(1)))
	case "redir":
		l.add("redirect" + portsText(l.regs.get(e.number(1)), l.regs.get(e.number(2)), " to ") + natFlags(e.number(3)))
	case "nat":
		l.nat(e)
	case "meta":
		l.set(operand{kind: metaKey, key: uint32(e.number(2))}, e.number(3))
	case "ct":
		o := operand{kind: ctKey, key: uint32(e.number(2))}
		if e.has(3) { // NFTA_CT_DIRECTION
			o.dir = Original + Direction(min(e.number(3), 1))
		}
		l.set(o, e.number(4))
	case "payload":
		l.set(operand{kind: payload, key: uint32(e.number(2)), offset: uint32(e.number(3)), size: int(e.number(4))}, e.number(5))
	default:
		l.rare(e)
	}
}

// rare is a statement that few rules have.
func (l *lister) rare(e *expr) {
	switch e.name {
	case "queue":
		l.add(queueText(e))
	case "objref":
		l.add(objectText(e))
	case "dynset":
		l.dynset(e)
	case "connlimit":
		l.addf("ct count %s%d", over(e.number(2)), e.number(1))
	case "quota":
		l.addf("quota %s%s", over(e.number(2)), bytesText(e.number(1)))
	case "flow_offload":
		l.add("flow add @" + e.text(1))
	case "match":
		l.xtMatch(e)
	case "target":
		l.xtTarget(e)
	default:
		l.add("[" + e.name + "]")
	}
}

// set writes the change of a key to what is in a register.
func (l *lister) set(key operand, reg uint64) {
	s, v := l.selector(key), l.regs.get(reg)
	value := v.text
	switch {
	case v.kind == constant && s.bits != nil:
		value = bitsText(s.bits, native(v.value), ",")
	case v.kind == constant:
		value = s.format(v.value)
	case v.kind == other:
	case v.kind == none:
		value = "[unknown]"
	default: // another key
		value = l.selector(v).text
		value += l.selector(v).changed(v)
	}
	l.add(s.text + " set " + value)
}

// changed writes (value & mask) ^ xor, shorter where it is one operation.
func (s selector) changed(o operand) string {
	if o.mask == nil {
		return ""
	}
	mask, xor := native(o.mask), native(o.xor)
	switch all := uint64(1)<<(8*min(len(o.mask), 7)) - 1; {
	case xor == 0:
		return " & " + s.format(o.mask)
	case mask == all&^xor:
		return " | " + s.format(o.xor)
	case mask == all:
		return " ^ " + s.format(o.xor)
	}
	return " & " + s.format(o.mask) + " ^ " + s.format(o.xor)
}

func over(inverted uint64) string {
	if inverted&1 != 0 {
		return "over "
	}
	return ""
}

func limitText(e *expr) string {
	rate, unit, burst := e.number(1), named(limitUnits, e.number(2)), e.number(3)
	const bytesType = 1 // NFT_LIMIT_PKT_BYTES
	if e.number(4) == bytesType {
		s := fmt.Sprintf("limit rate %s%s/%s", over(e.number(5)), bytesText(rate), unit)
		if burst != 0 {
			s += " burst " + bytesText(burst)
		}
		return s
	}
	s := fmt.Sprintf("limit rate %s%d/%s", over(e.number(5)), rate, unit)
	if burst != 0 && burst != 5 {
		s += fmt.Sprintf(" burst %d packets", burst)
	}
	return s
}

func logText(e *expr) string {
	const warning, flagMask = 4, 5 // LOGLEVEL_WARNING; NFTA_LOG_LEVEL is 5, NFTA_LOG_FLAGS 6
	s := "log"
	if e.has(2) {
		s += " prefix " + quote(e.text(2))
	}
	if e.has(1) {
		s += fmt.Sprintf(" group %d", e.number(1))
		if n := e.number(3); n != 0 {
			s += fmt.Sprintf(" snaplen %d", n)
		}
		if n := e.number(4); n != 0 {
			s += fmt.Sprintf(" queue-threshold %d", n)
		}
		return s
	}
	if level := e.number(flagMask); e.has(flagMask) && level != warning {
		s += " level " + nameOr(logLevels, level)
	}
	return s + logFlags(e.number(6))
}

// logFlags are NF_LOG_TCPSEQ and so on.
func logFlags(v uint64) string {
	const all = 0xf
	switch {
	case v&all == all:
		return " flags all"
	case v == 0:
		return ""
	}
	var s string
	switch v & 3 {
	case 1:
		s = " flags tcp sequence"
	case 2:
		s = " flags tcp options"
	case 3:
		s = " flags tcp sequence,options"
	}
	for _, b := range []bit{{4, " flags ip options"}, {8, " flags skuid"}, {32, " flags ether"}} {
		if v&b.mask != 0 {
			s += b.name
		}
	}
	return s
}

// reject leaves out what is the default.
func (l *lister) reject(typ uint32, code uint8) {
	switch typ {
	case rejectReset:
		if !l.inet {
			l.takeBack(transportHeader)
		}
		l.add("reject with tcp reset")
	case rejectICMPX:
		l.rejectWith("icmpx", icmpxRejects, code, code == 1)
	default:
		l.takeBack(networkHeader)
		if l.l3 == IPv6 {
			l.rejectWith("icmpv6", icmp6Rejects, code, code == 4 && !l.inet)
		} else {
			l.rejectWith("icmp", icmpRejects, code, code == 3 && !l.inet)
		}
	}
}

func (l *lister) rejectWith(kind string, names []string, code uint8, standard bool) {
	if standard {
		l.add("reject")
		return
	}
	l.add("reject with " + kind + " " + nameOr(names, uint64(code)))
}

// portsText is a port or a range of them, or nothing.
func portsText(low, high operand, before string) string {
	switch {
	case low.kind == none:
		return ""
	case low.kind == other:
		return before + low.text
	case high.kind == constant && string(high.value) != string(low.value):
		return before + ":" + decimal(low.value) + "-" + decimal(high.value)
	}
	return before + ":" + decimal(low.value)
}

// natFlags are NF_NAT_RANGE_PROTO_RANDOM and so on.
func natFlags(v uint64) string {
	var s []string
	for _, b := range []bit{{4, "random"}, {16, "fully-random"}, {8, "persistent"}} {
		if v&b.mask != 0 {
			s = append(s, b.name)
		}
	}
	if s == nil {
		return ""
	}
	return " " + strings.Join(s, ",")
}

func (l *lister) nat(e *expr) {
	s := "dnat"
	if e.number(1) == snat {
		s = "snat"
	}
	family := Family(e.number(2))
	if l.inet {
		s += " " + family.String()
	}
	addr, last := l.regs.get(e.number(3)), l.regs.get(e.number(4))
	port := portsText(l.regs.get(e.number(5)), l.regs.get(e.number(6)), "")
	to := addr.text
	if addr.kind == constant {
		to = addrText(addr.value)
	}
	if a, err := netip.ParseAddr(to); err == nil && a.Is6() && port != "" {
		to = "[" + to + "]"
	}
	if last.kind == constant && string(last.value) != string(addr.value) {
		to += "-" + addrText(last.value)
	}
	l.add(s + " to " + to + port + natFlags(e.number(7)))
}

func queueText(e *expr) string {
	s := "queue"
	flags := e.number(3)
	if flags&1 != 0 { // NFT_QUEUE_FLAG_BYPASS
		s += " flags bypass"
	}
	if flags&2 != 0 { // NFT_QUEUE_FLAG_CPU_FANOUT
		s += strings.Replace(" flags fanout", " flags ", map[bool]string{true: ",", false: " flags "}[flags&1 != 0], 1)
	}
	if e.has(4) { // NFTA_QUEUE_SREG_QNUM
		return s + " to [register]"
	}
	first, total := e.number(1), e.number(2)
	if total > 1 {
		return s + fmt.Sprintf(" to %d-%d", first, first+total-1)
	}
	return s + fmt.Sprintf(" to %d", first)
}

// objectText refers to an object of the table.
func objectText(e *expr) string {
	words := map[uint64]string{1: "counter name ", 2: "quota name ", 3: "ct helper set ", 4: "limit name ", 7: "ct timeout set ", 9: "ct expectation set "}
	if e.has(4) { // NFTA_OBJREF_SET_NAME
		return "[objref @" + e.text(4) + "]"
	}
	word, ok := words[e.number(1)]
	if !ok {
		return fmt.Sprintf("[objref %d %s]", e.number(1), e.text(2))
	}
	return word + quote(e.text(2))
}

// dynset changes a set by what the packet is.
func (l *lister) dynset(e *expr) {
	s := nameOr([]string{"add", "update", "delete"}, e.number(3)) + " @" + e.text(1) + " { " + l.key(e.number(4)).text
	if ms := e.number(6); ms != 0 {
		s += " timeout " + duration(ms)
	}
	inner := newLister(l.l3)
	if nested, ok := parseExpr(e.attrs[7]); ok && nested.name != "dynset" {
		inner.statement(&nested)
	}
	if list, ok := parseExprs(e.attrs[10]); ok {
		for i := range list {
			if list[i].name != "dynset" { // the kernel has no such rule
				inner.statement(&list[i])
			}
		}
	}
	if t := inner.String(); t != "" {
		s += " " + t
	}
	l.add(s + " }")
}
