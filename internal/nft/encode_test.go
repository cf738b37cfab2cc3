package nft_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// Message types as they are on the wire: subsystem 10 in the upper byte.
const (
	batchBegin = 0x10
	batchEnd   = 0x11
	newTable   = 0xa00
	delTable   = 0xa02
	newChain   = 0xa03
	getChain   = 0xa04
	newRule    = 0xa06
	getRule    = 0xa07
)

var small = input(
	nft.Rule{CTState: nft.Established, Verdict: nft.Accept},
	nft.Rule{Counter: true, Verdict: nft.Drop},
)

func TestTransactionFrame(t *testing.T) {
	var types []uint16
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		types = append(types, r.Type)
		if (r.Type == batchBegin || r.Type == batchEnd) && !slices.Equal(r.Data, []byte{0, 0, 0, 10}) {
			t.Errorf("message %#x: nfgenmsg % x, want res_id 10", r.Type, r.Data)
		}
		if wants := r.Flags&nfnl.Ack != 0; !wants {
			return nil
		}
		return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
	})
	c := nft.NewConn(nl)
	defer c.Close()
	if err := c.Apply(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	want := []uint16{batchBegin, newTable, delTable, newTable, newChain, newRule, newRule, batchEnd}
	if !slices.Equal(types, want) {
		t.Errorf("got %#x, want %#x", types, want)
	}
}

// TestRefusal has the kernel refuse one message of a transaction.
func TestRefusal(t *testing.T) {
	tests := []struct {
		at    int // the message refused
		errno syscall.Errno
		want  string
		is    error
	}{
		{0, syscall.EPERM, "nft: operation not permitted: needs CAP_NET_ADMIN", fs.ErrPermission},
		{0, syscall.EOPNOTSUPP, "nft: operation not supported", errors.ErrUnsupported},
		{2, syscall.EBUSY, "nft: table inet t: device or resource busy", syscall.EBUSY},
		{4, syscall.ENOENT, "nft: chain c of table inet t: the kernel lacks its type", errors.ErrUnsupported},
		{4, syscall.EINVAL, "nft: chain c of table inet t: invalid argument", syscall.EINVAL},
		{6, syscall.ERANGE, "nft: rule 2 of chain c of table inet t: numerical result out of range", syscall.ERANGE},
		{5, syscall.ENOENT, "nft: rule 1 of chain c of table inet t: the kernel lacks one of its expressions", errors.ErrUnsupported},
	}
	for _, test := range tests {
		n := 0
		nl, _ := nfnltest.Dial(func(r nfnltest.Request) (answer [][]byte) {
			if n == test.at {
				answer = [][]byte{nfnltest.Acknowledge(r, test.errno, "", 0)}
			} else if r.Flags&nfnl.Ack != 0 {
				answer = [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
			}
			n++
			return answer
		})
		err := nft.NewConn(nl).Apply(t.Context(), small)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || !errors.Is(err, test.is) {
			t.Errorf("message %d: got %v, want %q, errors.Is %v", test.at, err, test.want, test.is)
		}
	}
}

// ruleData is a payload of NFT_MSG_NEWRULE.
func ruleData(packets, bytes uint64, userdata []byte) []byte {
	b := nfnl.NewNetfilter(10, 6, 0, 1)
	b.Nested(4, func() { // NFTA_RULE_EXPRESSIONS
		for _, name := range []string{"log", "counter"} {
			b.Nested(1, func() {
				b.String(1, name)
				b.Nested(2, func() { b.U64(1, bytes); b.U64(2, packets); b.U32(99, 1) })
			})
		}
	})
	b.Bytes(7, userdata) // NFTA_RULE_USERDATA
	return b.Message().Data
}

func TestDecodeRule(t *testing.T) {
	tests := []struct {
		userdata []byte
		comment  string
	}{
		{nil, ""},
		{[]byte("\x00\x03ab\x00"), "ab"},
		{[]byte("\x00\x02ab"), "ab"},
		{[]byte("\x07\x01x\x00\x03ab\x00"), "ab"},
		{[]byte("\x00\x09ab\x00"), ""},
		{[]byte("\x00"), ""},
	}
	for _, test := range tests {
		got, err := nft.DecodeRule(ruleData(2, 80, test.userdata))
		want := nft.Counter{Packets: 2, Bytes: 80, Counted: true, Comment: test.comment}
		if got != want || err != nil {
			t.Errorf("userdata %q: got %+v, %v, want %+v", test.userdata, got, err, want)
		}
	}
}

// TestCountersChanged has the rule set change under the first reading.
func TestCountersChanged(t *testing.T) {
	dumps := 0
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		if r.Type == getChain {
			return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
		}
		dumps++
		flags := uint16(nfnl.Multi)
		if dumps == 1 {
			flags |= 0x10 // NLM_F_DUMP_INTR
		}
		return [][]byte{nfnltest.Message(newRule, flags, r.Seq, ruleData(uint64(dumps), 0, nil)), nfnltest.Done(r.Seq, 0)}
	})
	got, err := nft.NewConn(nl).Counters(t.Context(), nft.INet, "t", "c")
	if err != nil || len(got) != 1 || got[0].Packets != 2 {
		t.Errorf("got %+v, %v, want what the second dump said", got, err)
	}
}

func FuzzDecodeRule(f *testing.F) {
	f.Add(ruleData(1, 60, []byte("\x00\x03ab\x00")))
	f.Add(ruleData(0, 0, nil)[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := nft.DecodeRule(b)
		if err != nil && c != (nft.Counter{}) {
			t.Errorf("%+v with error %v", c, err)
		}
	})
}
