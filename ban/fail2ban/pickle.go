package fail2ban

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// appendRequest appends a list of strings as a pickle of protocol 2.
func appendRequest(b []byte, words []string) []byte {
	b = append(b, opProto, 2, opEmptyList, opMark)
	for _, w := range words {
		b = append(b, opBinUnicode)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(w)))
		b = append(b, w...)
	}
	return append(b, opAppends, opStop)
}

// Opcodes of Python's pickletools. Those of answers are of protocol 5 at most,
// and only those of values and of calls: nothing is called.
const (
	opMark         = '('
	opStop         = '.'
	opPop          = '0'
	opBinFloat     = 'G'
	opBinInt       = 'J'
	opBinInt1      = 'K'
	opBinInt2      = 'M'
	opNone         = 'N'
	opReduce       = 'R'
	opBinUnicode   = 'X'
	opEmptyList    = ']'
	opAppend       = 'a'
	opBuild        = 'b'
	opAppends      = 'e'
	opBinGet       = 'h'
	opLongBinGet   = 'j'
	opBinPut       = 'q'
	opLongBinPut   = 'r'
	opSetItem      = 's'
	opTuple        = 't'
	opSetItems     = 'u'
	opEmptyTuple   = ')'
	opEmptyDict    = '}'
	opProto        = 0x80
	opNewObj       = 0x81
	opTuple1       = 0x85
	opTuple2       = 0x86
	opTuple3       = 0x87
	opTrue         = 0x88
	opFalse        = 0x89
	opLong1        = 0x8a
	opShortUnicode = 0x8c
	opUnicode8     = 0x8d
	opStackGlobal  = 0x93
	opMemoize      = 0x94
	opFrame        = 0x95
)

// The values of a pickle besides nil, bool, int64, float64 and string.
type (
	tuple []any
	list  struct{ items []any } // it grows after it was memoized
	dict  struct{}              // what is in it is of no interest
	class string                // module and name
	// object is what a class was called with. It is not made.
	object struct {
		class class
		args  tuple
	}
)

var errPickle = errors.New("malformed pickle")

// decode reads one pickle. What it takes is bounded by len(b).
func decode(b []byte) (v any, err error) {
	d := decoder{b: b, memo: make(map[uint32]any)}
	for !d.done && d.err == nil {
		d.step()
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.result, nil
}

type decoder struct {
	b      []byte
	stack  []any
	marks  []int // lengths of the stack
	memo   map[uint32]any
	done   bool
	result any
	err    error
}

func (d *decoder) fail() { d.err = errPickle }

// take takes n bytes; where there are fewer it fails and returns zeros, of which
// there are no more than a number needs.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return make([]byte, min(n, 8))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() uint64   { return uint64(d.take(1)[0]) }
func (d *decoder) u32() uint64  { return uint64(binary.LittleEndian.Uint32(d.take(4))) }
func (d *decoder) u64() uint64  { return binary.LittleEndian.Uint64(d.take(8)) }
func (d *decoder) push(v any)   { d.stack = append(d.stack, v) }
func (d *decoder) put(i uint64) { d.memo[uint32(i)] = d.top() }

// floor is the length of the stack at the last mark.
func (d *decoder) floor() int {
	if len(d.marks) == 0 {
		return 0
	}
	return d.marks[len(d.marks)-1]
}

// top is the last value, which stays.
func (d *decoder) top() any {
	if len(d.stack) <= d.floor() {
		d.fail()
		return nil
	}
	return d.stack[len(d.stack)-1]
}

// pop takes the last n values.
func (d *decoder) pop(n int) []any {
	at := len(d.stack) - n
	if at < d.floor() {
		d.fail()
		return make([]any, n)
	}
	out := append([]any(nil), d.stack[at:]...)
	d.stack = d.stack[:at]
	return out
}

// toMark takes the values since the last mark, and it.
func (d *decoder) toMark() []any {
	if len(d.marks) == 0 {
		d.fail()
		return nil
	}
	out := d.pop(len(d.stack) - d.floor())
	d.marks = d.marks[:len(d.marks)-1]
	return out
}

func (d *decoder) step() {
	switch op := d.u8(); op {
	case opProto:
		d.take(1)
	case opFrame:
		d.take(8)
	case opStop:
		d.done, d.result = true, d.top()
	case opMark:
		d.marks = append(d.marks, len(d.stack))
	case opPop:
		d.pop(1)
	case opMemoize:
		d.put(uint64(len(d.memo)))
	case opBinPut:
		d.put(d.u8())
	case opLongBinPut:
		d.put(d.u32())
	case opBinGet:
		d.get(d.u8())
	case opLongBinGet:
		d.get(d.u32())
	default:
		if !d.value(op) && !d.compose(op) {
			d.err = fmt.Errorf("%w: opcode %#x", errPickle, op)
		}
	}
}

func (d *decoder) get(i uint64) {
	v, ok := d.memo[uint32(i)]
	if !ok {
		d.fail()
	}
	d.push(v)
}

// value reads a value that holds no others.
func (d *decoder) value(op uint64) bool {
	switch op {
	case opNone:
		d.push(nil)
	case opTrue, opFalse:
		d.push(op == opTrue)
	case opBinInt1:
		d.push(int64(d.u8()))
	case opBinInt2:
		d.push(int64(binary.LittleEndian.Uint16(d.take(2))))
	case opBinInt:
		d.push(int64(int32(d.u32())))
	case opLong1:
		d.push(d.long())
	case opBinFloat:
		d.push(math.Float64frombits(binary.BigEndian.Uint64(d.take(8))))
	case opShortUnicode:
		d.push(string(d.take(d.u8())))
	case opBinUnicode:
		d.push(string(d.take(d.u32())))
	case opUnicode8:
		d.push(string(d.take(d.u64())))
	case opEmptyTuple:
		d.push(tuple{})
	case opEmptyList:
		d.push(new(list))
	case opEmptyDict:
		d.push(new(dict))
	default:
		return false
	}
	return true
}

// long reads an integer of 8 bytes at most: no answer has a greater.
func (d *decoder) long() (v int64) {
	b := d.take(d.u8())
	if len(b) > 8 {
		d.fail()
		return 0
	}
	for i, c := range b {
		v |= int64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1] >= 0x80 {
		v -= 1 << (8 * n)
	}
	return v
}

// compose makes a value of others.
func (d *decoder) compose(op uint64) bool {
	switch op {
	case opTuple1, opTuple2, opTuple3:
		d.push(tuple(d.pop(int(op-opTuple1) + 1)))
	case opTuple:
		d.push(tuple(d.toMark()))
	case opAppend:
		d.extend(d.pop(1))
	case opAppends:
		d.extend(d.toMark())
	case opSetItem:
		d.pop(2)
	case opSetItems:
		d.toMark()
	case opBuild:
		d.pop(1)
	case opStackGlobal:
		d.global()
	case opReduce, opNewObj:
		d.reduce()
	default:
		return false
	}
	return true
}

func (d *decoder) extend(items []any) {
	l, ok := d.top().(*list)
	if !ok {
		d.fail()
		return
	}
	l.items = append(l.items, items...)
}

func (d *decoder) global() {
	v := d.pop(2)
	module, ok1 := v[0].(string)
	name, ok2 := v[1].(string)
	if !ok1 || !ok2 {
		d.fail()
	}
	d.push(class(module + "." + name))
}

func (d *decoder) reduce() {
	v := d.pop(2)
	c, ok1 := v[0].(class)
	args, ok2 := v[1].(tuple)
	if !ok1 || !ok2 {
		d.fail()
	}
	d.push(&object{c, args})
}

// text returns a string: one as it is, or what a class of one was called with,
// as fail2ban answers with str of an address.
func text(v any) (string, bool) {
	if o, ok := v.(*object); ok && len(o.args) == 1 {
		v = o.args[0]
	}
	s, ok := v.(string)
	return s, ok
}
