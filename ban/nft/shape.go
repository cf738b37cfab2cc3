package nft

import (
	"fmt"
	"net"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// rule is one that the table must have: as nft(8) lists it, and as expressions.
type rule struct {
	text  string
	write func(exprs)
}

// chain is one that the table must have: at a hook, or only jumped to.
type chain struct {
	name  string
	hook  uint32 // enum nf_inet_hooks, if base
	base  bool
	rules []rule
}

// banned is the chain with the lookups.
const banned = "banned"

// chains are those of a table with these sets, in the order in which they can be
// made.
func (c *Config) chains(kinds []kind) []chain {
	var lookups []rule
	for _, k := range kinds {
		lookups = append(lookups, c.lookup(k))
	}
	return []chain{
		{name: banned, rules: lookups},
		{name: "input", base: true, hook: 1, rules: c.way()},   // NF_INET_LOCAL_IN
		{name: "forward", base: true, hook: 2, rules: c.way()}, // NF_INET_FORWARD
	}
}

// way are the rules that lead to the lookups. An accept ends this table's
// chain, and no other.
func (c *Config) way() []rule {
	rules := []rule{
		{"ct direction reply accept", func(e exprs) {
			e.load("ct", ctDirection)
			e.compare(equal, reply)
			e.decide(codeAccept, "")
		}},
		{"ct state untracked meta l4proto ipv6-icmp accept", func(e exprs) {
			e.load("ct", ctState)
			e.mask(host32(untracked))
			e.compare(differ, 0, 0, 0, 0)
			e.load("meta", metaL4Proto)
			e.compare(equal, icmpv6)
			e.decide(codeAccept, "")
		}},
	}
	for _, p := range c.Ports {
		rules = append(rules, rule{fmt.Sprintf("%s dport %d jump %s", protoName(p.Proto), p.Port, banned), func(e exprs) {
			const offset = 2 // of the destination port, in all protocols with ports
			e.load("meta", metaL4Proto)
			e.compare(equal, p.Proto)
			e.payload(transportHeader, offset, 2)
			e.compare(equal, big16(p.Port)...)
			e.decide(codeJump, banned)
		}})
	}
	if len(c.Ports) == 0 {
		rules = append(rules, rule{"jump " + banned, func(e exprs) { e.decide(codeJump, banned) }})
	}
	return rules
}

// lookup drops what comes from the addresses of a set.
func (c *Config) lookup(k kind) rule {
	text, family, offset := "ip saddr", byte(2), uint32(12) // NFPROTO_IPV4, saddr in struct iphdr
	if k.six {
		text, family, offset = "ip6 saddr", 10, 8 // NFPROTO_IPV6, saddr in struct ipv6hdr
	}
	if !k.host() {
		text += " & " + net.IP(k.mask()).String() + " =="
	}
	text += " @" + k.String()
	if c.Log != nil {
		if c.Log.Prefix != "" {
			text += fmt.Sprintf(" log prefix \"%s\" group %d", c.Log.Prefix, c.Log.Group)
		} else {
			text += fmt.Sprintf(" log group %d", c.Log.Group)
		}
	}
	return rule{text + " drop", func(e exprs) {
		e.load("meta", metaNFProto)
		e.compare(equal, family)
		e.payload(networkHeader, offset, uint32(k.size()))
		if !k.host() {
			e.mask(k.mask())
		}
		e.lookup(k.String())
		if c.Log != nil {
			e.log(*c.Log)
		}
		e.decide(codeDrop, "")
	}}
}

// batch is a transaction in the making.
type batch struct {
	table string
	msgs  []nfnl.Message
	about []about
	ids   uint32 // of the sets made in it

	memory []*nfnl.Builder // of messages with elements
	used   int             // of them
}

// about is what a message is about: an object, or the changes from first to
// last.
type about struct {
	object      string
	op          uint8
	set         kind
	first, last int
}

func newBatch(table string) *batch {
	b := &batch{table: table}
	b.reset()
	return b
}

// reset begins another transaction in the memory of the last.
func (b *batch) reset() {
	b.msgs, b.about = append(b.msgs[:0], frame(batchBegin)), append(b.about[:0], about{})
	b.ids, b.used = 0, 0
}

// next begins a message with elements.
func (b *batch) next(op uint8, how uint16) *nfnl.Builder {
	if b.used == len(b.memory) {
		b.memory = append(b.memory, new(nfnl.Builder))
	}
	m := b.memory[b.used]
	b.used++
	m.Netfilter(subsystem, op, how, inet)
	return m
}

func (b *batch) add(m *nfnl.Builder, what about) {
	b.msgs = append(b.msgs, m.Message())
	b.about = append(b.about, what)
}

func (b *batch) object(m *nfnl.Builder, format string, args ...any) {
	b.add(m, about{object: fmt.Sprintf(format, args...)})
}

// end finishes it. Only the last message is acknowledged: one answer for each
// would overrun the receive buffer. A trial is left without its end: the kernel
// checks it and puts nothing in force (nfnetlink_rcv_batch).
func (b *batch) end(trial bool) []nfnl.Message {
	b.msgs[len(b.msgs)-1].Flags |= nfnl.Ack
	if trial {
		return b.msgs
	}
	b.about = append(b.about, about{})
	return append(b.msgs, frame(batchEnd))
}

// makeTable makes the table, unless somebody else does meanwhile, or wakes up one
// that sleeps.
func (b *batch) makeTable(have state) {
	how := uint16(nfnl.Create)
	if !have.exists {
		how |= nfnl.Exclude
	}
	m := request(newTable, how)
	m.String(tableName, b.table)
	m.U32(tableFlags, 0)
	b.object(m, "table")
}

// clear takes chains away: first their rules, which may jump to one another.
func (b *batch) clear(names []string) {
	for _, name := range names {
		m := request(delRule, 0)
		m.String(ruleTable, b.table)
		m.String(ruleChain, name)
		b.object(m, "rules of chain %s", name)
	}
	for _, name := range names {
		m := request(delChain, 0)
		m.String(chainTable, b.table)
		m.String(chainName, name)
		b.object(m, "chain %s", name)
	}
}

func (b *batch) makeChain(c chain, priority int32) {
	m := request(newChain, nfnl.Create)
	m.String(chainTable, b.table)
	m.String(chainName, c.name)
	if c.base {
		m.Nested(chainHook, func() {
			m.U32(hookNumber, c.hook)
			m.U32(hookPriority, uint32(priority))
		})
		m.U32(chainPolicy, codeAccept)
		m.String(chainType, "filter")
	}
	b.object(m, "chain %s", c.name)
}

func (b *batch) makeRule(chain string, r rule) {
	m := request(newRule, nfnl.Create|nfnl.Append)
	m.String(ruleTable, b.table)
	m.String(ruleChain, chain)
	m.Nested(ruleExpressions, func() { r.write(exprs{m}) })
	b.object(m, "rule %q of chain %s", r.text, chain)
}

func (b *batch) makeSet(c *Config, k kind) {
	b.ids++
	keyType := uint32(typeIPv4)
	if k.six {
		keyType = typeIPv6
	}
	m := request(newSet, nfnl.Create)
	m.String(setTable, b.table)
	m.String(setName, k.String())
	m.U32(setFlags, flagTimeout)
	m.U32(setKeyType, keyType)
	m.U32(setKeyLen, uint32(k.size()))
	m.U32(setID, b.ids)
	if c.Size > 0 {
		m.Nested(setDesc, func() { m.U32(descSize, c.Size) })
	}
	if c.Counters {
		m.Nested(setExpr, func() {
			m.String(exprName, "counter")
			m.Nested(exprData, func() {})
		})
	}
	b.object(m, "set %v", k)
}
