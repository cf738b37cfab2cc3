package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	subsystemExpect = 2 // NFNL_SUBSYS_CTNETLINK_EXP

	opExpectNew         = 0 // IPCTNL_MSG_EXP_NEW
	opExpectGet         = 1 // IPCTNL_MSG_EXP_GET
	opExpectDelete      = 2 // IPCTNL_MSG_EXP_DELETE
	opExpectGetStatsCPU = 3 // IPCTNL_MSG_EXP_GET_STATS_CPU
)

// enum ctattr_expect, ctattr_expect_nat
const (
	ctaExpectMaster   = 1  // CTA_EXPECT_MASTER
	ctaExpectTuple    = 2  // CTA_EXPECT_TUPLE
	ctaExpectMask     = 3  // CTA_EXPECT_MASK
	ctaExpectTimeout  = 4  // CTA_EXPECT_TIMEOUT
	ctaExpectID       = 5  // CTA_EXPECT_ID
	ctaExpectHelpName = 6  // CTA_EXPECT_HELP_NAME
	ctaExpectZone     = 7  // CTA_EXPECT_ZONE
	ctaExpectFlags    = 8  // CTA_EXPECT_FLAGS
	ctaExpectClass    = 9  // CTA_EXPECT_CLASS
	ctaExpectNAT      = 10 // CTA_EXPECT_NAT
	ctaExpectFn       = 11 // CTA_EXPECT_FN

	ctaExpectNATDir   = 1 // CTA_EXPECT_NAT_DIR
	ctaExpectNATTuple = 2 // CTA_EXPECT_NAT_TUPLE
)

// maxHelperName is NF_CT_HELPER_NAME_LEN without its NUL.
const maxHelperName = 15

// decodeExpectation reads the payload of an IPCTNL_MSG_EXP_NEW or _DELETE
// message. Unknown attributes are skipped. On error *e is the zero Expectation.
// It allocates only for names that differ from those in *e.
func decodeExpectation(b []byte, e *Expectation) error {
	before := *e
	*e = Expectation{}
	if len(b) < nfgenmsgLen {
		return errShort
	}
	err := e.decode(b[nfgenmsgLen:], &before)
	if err != nil {
		*e = Expectation{}
	}
	return err
}

func (e *Expectation) decode(b []byte, before *Expectation) error {
	var zone uint16 // of one direction: expectations are looked up by that of the master
	a := nfnl.Walk(b)
	for a.Next() {
		var err error
		switch a.Type {
		case ctaExpectTuple:
			err = e.Tuple.decode(a.Value, &zone)
		case ctaExpectMask:
			err = e.Mask.decode(a.Value, &zone)
		case ctaExpectMaster:
			err = e.Master.decode(a.Value, &zone)
		case ctaExpectNAT:
			e.Fields |= ExpectFieldNAT
			err = e.NAT.decode(a.Value)
		case ctaExpectTimeout:
			e.Timeout, e.Fields = time.Duration(a.U32())*time.Second, e.Fields|ExpectFieldTimeout
		case ctaExpectID:
			e.ID, e.Fields = a.U32(), e.Fields|ExpectFieldID
		case ctaExpectZone:
			e.Zone, e.Fields = a.U16(), e.Fields|ExpectFieldZone
		case ctaExpectFlags:
			e.Flags, e.Fields = ExpectFlags(a.U32()), e.Fields|ExpectFieldFlags
		case ctaExpectClass:
			e.Class, e.Fields = a.U32(), e.Fields|ExpectFieldClass
		case ctaExpectHelpName:
			e.Helper = nameLike(before.Helper, a.Value)
		case ctaExpectFn:
			e.Function = nameLike(before.Function, a.Value)
		}
		if err != nil {
			return fmt.Errorf("attribute %d: %w", a.Type, err)
		}
	}
	return a.Err()
}

func (n *ExpectationNAT) decode(b []byte) error {
	var zone uint16
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaExpectNATDir:
			n.Reply = a.U32() != 0
		case ctaExpectNATTuple:
			if err := n.Tuple.decode(a.Value, &zone); err != nil {
				return err
			}
			n.Tuple.Dst, n.Tuple.DstPort = netip.Addr{}, 0 // never set: nf_conntrack_expect has none
		}
	}
	return a.Err()
}

// nameLike is the string that b holds up to its NUL: the given one, if it is
// the same.
func nameLike(name string, b []byte) string {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	if string(b) == name {
		return name
	}
	return strings.ToValidUTF8(string(b), "?")
}

// encodeKey is a request about one expectation. A delete request without
// CTA_EXPECT_TUPLE removes all (ctnetlink_del_expect): none is ever made.
func (e *Expectation) encodeKey(op uint8, id bool) (nfnl.Message, error) {
	if err := e.Tuple.check(); err != nil {
		return nfnl.Message{}, err
	}
	b := nfnl.NewNetfilter(subsystemExpect, op, 0, e.Tuple.family())
	e.Tuple.encode(b, ctaExpectTuple, 0)
	encodeExpectZone(b, e.Zone)
	if id {
		b.U32(ctaExpectID, e.ID)
	}
	return b.Message(), nil
}

func encodeExpectZone(b *nfnl.Builder, zone uint16) {
	if zone != 0 {
		b.U16(ctaExpectZone, zone)
	}
}

// encodeCreate asks for a new expectation and then, because the kernel ignores
// CTA_EXPECT_TIMEOUT of a new one, for its timeout.
func (e *Expectation) encodeCreate() ([]nfnl.Message, error) {
	if err := e.checkCreate(); err != nil {
		return nil, err
	}
	create := e.encodeWhole(nfnl.Create | nfnl.Exclude)
	if e.Timeout == 0 {
		return []nfnl.Message{create.Message()}, nil
	}
	change := e.encodeWhole(0)
	change.U32(ctaExpectTimeout, uint32(e.Timeout/time.Second))
	return []nfnl.Message{create.Message(), change.Message()}, nil
}

func (e *Expectation) encodeWhole(flags uint16) *nfnl.Builder {
	b := nfnl.NewNetfilter(subsystemExpect, opExpectNew, flags, e.Tuple.family())
	e.Tuple.encode(b, ctaExpectTuple, 0)
	mask := e.Mask
	mask.Proto = e.Tuple.Proto // says which of its fields follow
	mask.encode(b, ctaExpectMask, 0)
	e.Master.encode(b, ctaExpectMaster, 0)
	encodeExpectZone(b, e.Zone)
	if e.Flags != 0 {
		b.U32(ctaExpectFlags, uint32(e.Flags))
	}
	if e.Helper != "" {
		b.String(ctaExpectHelpName, e.Helper)
		b.U32(ctaExpectClass, e.Class)
	}
	if e.Function != "" {
		b.String(ctaExpectFn, e.Function)
	}
	if e.Has(ExpectFieldNAT) {
		e.NAT.encode(b)
	}
	return b
}

func (n *ExpectationNAT) encode(b *nfnl.Builder) {
	t := n.Tuple
	t.Dst = netip.IPv4Unspecified() // required, and not looked at
	if !t.Src.Is4() {
		t.Dst = netip.IPv6Unspecified()
	}
	dir := uint32(0) // IP_CT_DIR_ORIGINAL
	if n.Reply {
		dir = 1 // IP_CT_DIR_REPLY
	}
	b.Nested(ctaExpectNAT, func() {
		b.U32(ctaExpectNATDir, dir)
		t.encode(b, ctaExpectNATTuple, 0)
	})
}

func (e *Expectation) checkCreate() error {
	for _, t := range []Tuple{e.Tuple, e.Mask, e.Master} {
		if err := t.check(); err != nil {
			return err
		}
	}
	family := e.Tuple.family()
	switch {
	case e.Mask.family() != family, e.Master.family() != family,
		e.Has(ExpectFieldNAT) && e.NAT.Tuple.family() != family:
		return errors.New("tuple, mask, master and NAT are not of one family")
	case e.Timeout != 0 && (e.Timeout < time.Second || e.Timeout > maxTimeout):
		return fmt.Errorf("timeout %v: want 1s to %v", e.Timeout, maxTimeout)
	case e.Helper == "":
		return nil
	}
	return checkHelperName(e.Helper)
}

func checkHelperName(name string) error {
	if name == "" || len(name) > maxHelperName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("helper name %q: want 1 to %d bytes without NUL", name, maxHelperName)
	}
	return nil
}
