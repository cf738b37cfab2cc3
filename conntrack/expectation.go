package conntrack

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"math"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Expectation is a connection that a tracking helper has announced (struct
// nf_conntrack_expect): the first packet that fits it makes an entry with
// status Expected, whose Details name the Master. It is comparable.
type Expectation struct {
	// Tuple is the expected original tuple, of which the bits set in Mask
	// count. The kernel takes a mask of the source only: address and port.
	Tuple, Mask Tuple
	// Master is the original tuple of the connection that announced it.
	Master Tuple
	// NAT is what the expected connection's addresses are translated to.
	NAT ExpectationNAT
	// Zone is the conntrack zone of the master. Kernels take it (CTA_EXPECT_ZONE)
	// but do not tell it: ExpectationsOf and Expectation fill in the one that
	// was asked for.
	Zone  uint16
	Flags ExpectFlags
	// Fields says which of the values the kernel, or the text, gave.
	Fields ExpectFields
	// Timeout is the time left, in whole seconds.
	Timeout time.Duration
	// ID is made of the tuple and of where the expectation lies in the
	// kernel's memory (CTA_EXPECT_ID, nf_expect_get_id).
	ID uint32
	// Class is which of the helper's policies applies: how many there may be
	// at once and for how long, such as one for each kind of media of SIP.
	Class uint32
	// Helper is the name of the master's helper, such as "ftp"; empty when it
	// has none, or none but one in user space.
	Helper string
	// Function is the name of what the kernel runs on the new entry, such as
	// "nat-follow-master" (CTA_EXPECT_FN); empty when there is none.
	Function string
}

// ExpectationNAT is where the expected connection is led (CTA_EXPECT_NAT).
type ExpectationNAT struct {
	// Tuple has the address and port in Src and SrcPort; the rest is zero. An
	// unspecified address is that of the master: FTP's helper keeps the port
	// only.
	Tuple Tuple
	// Reply says that the expected connection comes in the direction of the
	// master's replies (IP_CT_DIR_REPLY).
	Reply bool
}

// ExpectFlags is a set of NF_CT_EXPECT_* bits.
type ExpectFlags uint32

// The flags of an expectation.
const (
	ExpectPermanent ExpectFlags = 1 << iota // NF_CT_EXPECT_PERMANENT: not used up by the first connection
	ExpectInactive                          // NF_CT_EXPECT_INACTIVE: not used yet
	ExpectUserspace                         // NF_CT_EXPECT_USERSPACE: from a helper in user space
)

// ExpectFields is a set of the parts of an Expectation that can be absent.
type ExpectFields uint8

// The parts of an Expectation that can be absent.
const (
	ExpectFieldTimeout ExpectFields = 1 << iota
	ExpectFieldID
	ExpectFieldZone
	ExpectFieldFlags
	ExpectFieldClass
	ExpectFieldNAT
)

// Has reports whether all of the fields were given.
func (e Expectation) Has(fields ExpectFields) bool { return e.Fields&fields == fields }

// Expectations yields the expectations of all connections, as All does flows.
func (c *Conn) Expectations(ctx context.Context) iter.Seq2[Expectation, error] {
	b := nfnl.NewNetfilter(subsystemExpect, opExpectGet, 0, familyUnspec)
	return c.expectations(ctx, b.Message(), 0)
}

// ExpectationsOf yields the expectations of one connection, given by the tuple
// of either direction and its zone. There being no such connection is
// fs.ErrNotExist.
func (c *Conn) ExpectationsOf(ctx context.Context, master Tuple, zone uint16) iter.Seq2[Expectation, error] {
	// Without NLM_F_ACK the kernel does not answer at all where the
	// connection has no helper (ctnetlink_dump_exp_ct).
	b := nfnl.NewNetfilter(subsystemExpect, opExpectGet, nfnl.Ack, master.family())
	master.encode(b, ctaExpectMaster, 0)
	encodeExpectZone(b, zone)
	if err := master.check(); err != nil {
		return func(yield func(Expectation, error) bool) { yield(Expectation{}, opError("expectations", err)) }
	}
	return c.expectations(ctx, b.Message(), zone)
}

func (c *Conn) expectations(ctx context.Context, req nfnl.Message, zone uint16) iter.Seq2[Expectation, error] {
	return func(yield func(Expectation, error) bool) {
		var e Expectation
		for m, err := range c.nl.Dump(ctx, req) {
			if err == nil {
				err = decodeExpectation(m.Data, &e)
			}
			if err != nil {
				yield(Expectation{}, opError("expectations", err))
				return
			}
			if e.inZone(zone); !yield(e, nil) {
				return
			}
		}
	}
}

// inZone fills in the zone that was asked for, which kernels do not tell.
func (e *Expectation) inZone(zone uint16) {
	if zone != 0 && !e.Has(ExpectFieldZone) {
		e.Zone, e.Fields = zone, e.Fields|ExpectFieldZone
	}
}

// Expectation returns the expectation that a connection of the tuple would
// meet, in the given zone. There being none is fs.ErrNotExist.
func (c *Conn) Expectation(ctx context.Context, tuple Tuple, zone uint16) (Expectation, error) {
	e, err := c.expectation(ctx, &Expectation{Tuple: tuple, Zone: zone})
	if err != nil {
		return Expectation{}, opError("get expectation", err)
	}
	return e, nil
}

// expectation looks one up by tuple and zone and, if it is there, ID.
func (c *Conn) expectation(ctx context.Context, want *Expectation) (e Expectation, err error) {
	req, err := want.encodeKey(opExpectGet, want.Has(ExpectFieldID))
	if err != nil {
		return Expectation{}, err
	}
	found := false
	err = c.nl.Do(ctx, req, func(m nfnl.Message) error {
		found = true
		return decodeExpectation(m.Data, &e)
	})
	if err == nil && !found {
		err = fs.ErrNotExist
	}
	e.inZone(want.Zone)
	return e, err
}

// CreateExpectation makes an expectation. Tuple, Mask and Master are required:
// Master is a connection that is there and has a helper, or it is
// fs.ErrNotExist and errors.ErrUnsupported. Zone, Flags but ExpectUserspace,
// NAT and Function are taken as they are. So is a Timeout of 1 s or more;
// without one it is the helper's. Helper, if it is not empty, must be that of
// the master, and then Class is taken: other helpers older kernels give to the
// expected connection, and newer ones ignore.
//
// One that a connection of the tuple would meet is fs.ErrExist, and one that
// could be confused with another is EBUSY. Where the class has as many as its
// helper allows, the oldest of the master's goes; EMFILE is more than
// net.netfilter.nf_conntrack_expect_max.
func (c *Conn) CreateExpectation(ctx context.Context, e Expectation) error {
	reqs, err := e.encodeCreate()
	if err != nil {
		return opError("create expectation", err)
	}
	for _, req := range reqs {
		if err := c.nl.Do(ctx, req, nil); err != nil {
			return opError("create expectation", err)
		}
	}
	return nil
}

// DeleteExpectation removes one expectation: the one that has the tuple, zone
// and ID. One that is gone already is fs.ErrNotExist. An expectation without an
// ID is refused, and its zone must be set if it is not the default one.
//
// Linux 5.2 to 6.16 compare the ID with another value than they tell, and so
// remove nothing. On those the ID is looked at first, and then what has the
// tuple is removed: an expectation of the same tuple made in between is hit.
func (c *Conn) DeleteExpectation(ctx context.Context, e Expectation) error {
	return opError("delete expectation", c.deleteExpectation(ctx, &e))
}

var errNoExpectID = errors.New("the expectation has no ID (CTA_EXPECT_ID): take it from Expectations")

func (c *Conn) deleteExpectation(ctx context.Context, e *Expectation) error {
	if !e.Has(ExpectFieldID) {
		return errNoExpectID
	}
	byID, err := e.encodeKey(opExpectDelete, true)
	if err != nil {
		return err
	}
	if err = c.nl.Do(ctx, byID, nil); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err = c.expectation(ctx, e); err != nil {
		return err
	}
	byTuple, err := e.encodeKey(opExpectDelete, false)
	if err != nil {
		return err
	}
	return c.nl.Do(ctx, byTuple, nil)
}

// DeleteExpectationsOfHelper removes the expectations of all connections that
// have the helper, in all zones. There being none is no error.
func (c *Conn) DeleteExpectationsOfHelper(ctx context.Context, helper string) error {
	if err := checkHelperName(helper); err != nil {
		return opError("delete expectations", err)
	}
	b := nfnl.NewNetfilter(subsystemExpect, opExpectDelete, 0, familyUnspec)
	b.String(ctaExpectHelpName, helper)
	return opError("delete expectations", c.nl.Do(ctx, b.Message(), nil))
}

// FlushExpectations removes all expectations of the network namespace. The
// connections that announced them, and those that came of them, stay.
func (c *Conn) FlushExpectations(ctx context.Context) error {
	b := nfnl.NewNetfilter(subsystemExpect, opExpectDelete, 0, familyUnspec)
	return opError("flush expectations", c.nl.Do(ctx, b.Message(), nil))
}

// maxTimeout is the longest time that does not overflow the kernel's count of
// jiffies at 1000 Hz.
const maxTimeout = math.MaxUint32 / 1000 * time.Second
