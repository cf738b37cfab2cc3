package nft

// operand is what a register holds.
type operand struct {
	kind   kind
	key    uint32 // meta and ct: the key; payload: the base
	dir    Direction
	offset uint32
	size   int    // bytes
	mask   []byte // of a bitwise expression, or nil
	xor    []byte
	value  []byte // constant
	// swapped is that values are in the other byte order than the kind's.
	swapped bool
	text    string // other
}

// hostOrder reports whether values are numbers in the host's byte order, which
// have no ranges in sets.
func (o operand) hostOrder() bool {
	switch o.kind {
	case metaKey:
		return o.key != 1 && o.key != metaNFProto && o.key != metaL4Proto && !o.swapped
	case ctKey:
		return (o.key < 7 || o.key == ctZone) && !o.swapped
	}
	return false
}

type kind uint8

const (
	none kind = iota
	constant
	metaKey
	ctKey
	payload
	other
)

// words is how many 32-bit registers there are (NFT_REG32_COUNT).
const words = 16

// registers are what the expressions before have loaded. A register of 128 bits
// is four of 32.
type registers [words]operand

// word is the first 32-bit register of a register, or -1.
func word(reg uint64) int {
	switch {
	case reg >= 1 && reg <= 4: // NFT_REG_1 to NFT_REG_4
		return int(reg-1) * 4
	case reg >= 8 && reg < 8+words: // NFT_REG32_00 to NFT_REG32_15
		return int(reg - 8)
	}
	return -1
}

func (r *registers) get(reg uint64) operand {
	if w := word(reg); w >= 0 {
		return r[w]
	}
	return operand{}
}

func (r *registers) set(reg uint64, o operand) {
	if w := word(reg); w >= 0 {
		r[w] = o
	}
}

// concat returns what lies side by side from a register on.
func (r *registers) concat(reg uint64) (list []operand) {
	for w := word(reg); w >= 0 && w < words && r[w].kind != none; w += max(1, (r[w].size+3)/4) {
		list = append(list, r[w])
	}
	return list
}

// load takes an expression that loads a register, and reports whether it is
// one.
func (r *registers) load(e *expr) bool {
	switch e.name {
	case "meta":
		if e.has(3) { // NFTA_META_SREG
			return false
		}
		key := uint32(e.number(2))
		r.set(e.number(1), operand{kind: metaKey, key: key, size: metaSize(key)})
	case "ct":
		if e.has(4) { // NFTA_CT_SREG
			return false
		}
		o := operand{kind: ctKey, key: uint32(e.number(2)), size: 4}
		if e.has(3) { // NFTA_CT_DIRECTION
			o.dir = Original + Direction(min(e.number(3), 1))
		}
		o.size = ctSize(o.key)
		r.set(e.number(1), o)
	case "payload":
		if e.has(5) { // NFTA_PAYLOAD_SREG
			return false
		}
		r.set(e.number(1), operand{kind: payload, key: uint32(e.number(2)), offset: uint32(e.number(3)), size: int(e.number(4) & 0xff)})
	case "immediate":
		if e.number(1) == regVerdict {
			return false
		}
		v := e.value(2)
		r.set(e.number(1), operand{kind: constant, value: v, size: len(v)})
	case "bitwise":
		return r.bitwise(e)
	case "byteorder":
		o := r.get(e.number(1))
		o.swapped = !o.swapped
		r.set(e.number(2), o)
	default:
		return r.special(e)
	}
	return true
}

// bitwise is (register & mask) ^ xor.
func (r *registers) bitwise(e *expr) bool {
	o := r.get(e.number(1))
	if e.number(6) != 0 || o.kind == none || o.mask != nil { // NFTA_BITWISE_OP: NFT_BITWISE_BOOL only
		return false
	}
	o.mask, o.xor = e.value(4), e.value(5)
	r.set(e.number(2), o)
	return true
}
