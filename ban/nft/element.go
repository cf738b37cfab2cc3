package nft

import (
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	// maxElements bytes of elements, and the one that reaches them, go into one
	// message: they are one attribute, whose length has 16 bits.
	maxElements = 60 << 10

	// maxComment is what of a reason is kept. nft(8) shows 128 bytes; Linux 6.18
	// refuses user data of 255.
	maxComment = 120

	// shortest is the least that a ban lasts, in milliseconds: Linux before 6.12
	// keeps an element for ever whose time is less than a tick, of at most 10 ms.
	shortest = 20

	// longest is what Until.Left can tell, in milliseconds. The kernel could keep
	// twice of it.
	longest = int64(math.MaxInt64 / time.Millisecond)
)

// change is an entry that is to be put in force.
type change struct {
	entry *ban.Entry
	end   int64 // if it is timed: ms since 1970
	at    int32 // in its part of the call
	kind  kind
	timed bool
	known bool // it may be in force already
}

// lifted is the change that takes a ban back.
func lifted(p netip.Prefix) change { return change{entry: &ban.Entry{Prefix: p}, kind: kindOf(p)} }

// elements adds messages with the elements of changes, which are of one set,
// beginning at the change with the index first: as they are now, in ms since 1970,
// or, at 0, the keys alone.
func (b *batch) elements(op uint8, how uint16, changes []change, first int, now int64) {
	for done := 0; done < len(changes); {
		m := b.next(op, how)
		k, start := changes[done].kind, done
		m.String(listTable, b.table)
		m.String(listSet, k.String())
		list := m.Begin(listElements)
		for ; done < len(changes) && m.Len()-list < maxElements; done++ {
			changes[done].element(m, now)
		}
		m.End(list)
		b.add(m, about{set: k, op: op, first: first + start, last: first + done})
	}
}

// element writes one.
func (c *change) element(m *nfnl.Builder, now int64) {
	elem := m.Begin(listElem)
	if a := c.entry.Prefix.Addr(); a.Is4() {
		b := a.As4()
		elementKey(m, b[:])
	} else {
		b := a.As16()
		elementKey(m, b[:])
	}
	if now != 0 {
		c.rest(m, now)
	}
	m.End(elem)
}

func elementKey(m *nfnl.Builder, key []byte) {
	at := m.Begin(elemKey)
	m.Bytes(dataValue, key)
	m.End(at)
}

// rest writes what an element has besides its key.
func (c *change) rest(m *nfnl.Builder, now int64) {
	if c.timed {
		m.U64(elemTimeout, timeout(c.end-now))
	}
	if s := comment(c.entry.Reason); s != "" {
		var data [2 + maxComment + 1]byte
		data[0], data[1] = udataComment, byte(len(s)+1)
		m.Bytes(elemUserdata, data[:2+copy(data[2:], s)+1])
	}
}

// timeout is what is left of a ban in milliseconds, as much as the kernel wants at
// least.
func timeout(left int64) uint64 { return uint64(max(left, shortest)) }

// comment is what of a reason is kept: what nft(8) can write and read again.
func comment(reason string) string {
	return cut(clean(reason[:min(len(reason), 4*maxComment)]))
}

// clean leaves out what cannot be printed, and double quotes.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\n', r == '\t':
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
}

// cut takes the first maxComment bytes, and of a rune all or nothing.
func cut(s string) string {
	for i := range s {
		if _, n := utf8.DecodeRuneInString(s[i:]); i+n > maxComment {
			return s[:i]
		}
	}
	return s
}

// listed is an element as the kernel has it.
type listed struct {
	entry          ban.Entry
	counted        bool
	packets, bytes uint64
}

// decodeElements appends the elements of an NFT_MSG_NEWSETELEM that are in force
// now. Those that can be no ban are left out.
func decodeElements(b []byte, k kind, now time.Time, list []listed) ([]listed, error) {
	if len(b) < genLen {
		return list, nfnl.ErrTruncated
	}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		if a.Type != listElements {
			continue
		}
		elems := nfnl.Walk(a.Value)
		for elems.Next() {
			e, ok, err := decodeElement(elems.Value, k, now)
			if err != nil {
				return list, err
			}
			if ok {
				list = append(list, e)
			}
		}
		if err := elems.Err(); err != nil {
			return list, err
		}
	}
	return list, a.Err()
}

func decodeElement(b []byte, k kind, now time.Time) (l listed, ok bool, err error) {
	l.entry.Until = ban.Forever
	over := false
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case elemKey:
			if v := nfnl.Walk(a.Value); v.Next() {
				l.entry.Prefix, ok = k.prefix(v.Value)
			}
		case elemExpiration:
			ms := a.U64()
			over = ms == 0
			l.entry.Until = ban.At(now.Add(time.Duration(min(ms, uint64(longest))) * time.Millisecond))
		case elemUserdata:
			l.entry.Reason = decodeComment(a.Value)
		case elemExpr:
			l.counter(a.Value)
		}
	}
	if err := a.Err(); err != nil {
		return listed{}, false, err
	}
	return l, ok && !over, nil
}

// decodeComment finds the comment in user data, whose types and lengths have one
// byte each.
func decodeComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		typ, v := b[0], b[2:2+int(b[1])]
		if typ == udataComment {
			return strings.ToValidUTF8(strings.TrimRight(string(v), "\x00"), "?")
		}
		b = b[2+len(v):]
	}
	return ""
}

// counter reads an expression, if it is a counter.
func (l *listed) counter(b []byte) {
	name := ""
	for a := nfnl.Walk(b); a.Next(); {
		switch a.Type {
		case exprName:
			name = a.String()
		case exprData:
			l.counted = name == "counter"
			for v := nfnl.Walk(a.Value); v.Next() && l.counted; {
				switch v.Type {
				case 1: // NFTA_COUNTER_BYTES
					l.bytes = v.U64()
				case 2: // NFTA_COUNTER_PACKETS
					l.packets = v.U64()
				}
			}
		}
	}
}

// elementAt is the index of the element in a message of elements that has the
// byte at offset, which counts from the message's header; -1 is none.
func elementAt(data []byte, offset int) int {
	offset -= headerLen + genLen
	if len(data) < genLen || offset < 0 {
		return -1
	}
	rest := data[genLen:]
	for all := len(rest); len(rest) > 0; {
		at := all - len(rest)
		var a nfnl.Attr
		if a, rest = nfnl.Cut(rest); a.Type != listElements {
			continue
		}
		offset -= at + attrLen
		for i, elems := 0, a.Value; len(elems) > 0; i++ {
			if _, elems = nfnl.Cut(elems); offset >= 0 && offset < len(a.Value)-len(elems) {
				return i
			}
		}
		return -1
	}
	return -1
}
