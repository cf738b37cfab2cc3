package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// TimeoutPolicy is a set of timeouts that rules assign to connections by its
// name (nfnetlink_cttimeout): iptables -t raw … -j CT --timeout NAME. It is
// comparable. The ct timeout objects of nftables look alike, but belong to a
// table and are not seen here.
//
// A policy protects the connections of one service from a timeout that is too
// short for them, without changing the sysctl for all others. It holds for
// connections that begin after their rule was made.
type TimeoutPolicy struct {
	Name   string // 1 to 31 bytes
	Family Family
	// Proto is the transport protocol; ProtoGeneric is all that have no
	// tracker of their own.
	Proto Proto
	// Timeouts are those of the protocol; the others are zero. UDP-Lite has
	// those of UDP. Those of DCCP are not read.
	Timeouts Timeouts
	// Use is the kernel's reference count: 1 when nothing uses it, and more
	// when rules do. Kernels since mid-2026, Linux 6.1 and 6.12 of that time
	// included, count the connections that have it too.
	Use uint32
}

// ProtoGeneric stands for the protocols without a tracker of their own in a
// TimeoutPolicy.
const ProtoGeneric Proto = 255

// Family is a network protocol (NFPROTO_*).
type Family uint8

// The families of connections.
const (
	FamilyIPv4 Family = 2  // NFPROTO_IPV4
	FamilyIPv6 Family = 10 // NFPROTO_IPV6
)

// String returns the family's word in conntrack -L -o extended.
func (f Family) String() string {
	switch f {
	case FamilyIPv4:
		return "ipv4"
	case FamilyIPv6:
		return "ipv6"
	}
	return fmt.Sprintf("NFPROTO_%d", uint8(f))
}

// TimeoutPolicies yields the policies of the network namespace.
func (c *Conn) TimeoutPolicies(ctx context.Context) iter.Seq2[TimeoutPolicy, error] {
	return func(yield func(TimeoutPolicy, error) bool) {
		var p TimeoutPolicy
		for m, err := range c.nl.Dump(ctx, policyRequest(opTimeoutGet, 0).Message()) {
			if err == nil {
				err = decodePolicy(m.Data, &p)
			}
			if err != nil {
				yield(TimeoutPolicy{}, opError("timeout policies", noPolicies(err)))
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// noPolicies explains the answer to a plain dump: nfnetlink_rcv_msg answers
// EINVAL for a subsystem that is not there.
func noPolicies(err error) error {
	if errors.Is(err, syscall.EINVAL) {
		err = fmt.Errorf("%w: no timeout policies in this kernel: %w (modprobe nfnetlink_cttimeout)",
			err, errors.ErrUnsupported)
	}
	return err
}

// TimeoutPolicy returns the policy of a name. There being none is
// fs.ErrNotExist.
func (c *Conn) TimeoutPolicy(ctx context.Context, name string) (TimeoutPolicy, error) {
	p, err := c.policy(ctx, name)
	if err != nil {
		return TimeoutPolicy{}, opError("get timeout policy", err)
	}
	return p, nil
}

func (c *Conn) policy(ctx context.Context, name string) (p TimeoutPolicy, err error) {
	if err := checkPolicyName(name); err != nil {
		return TimeoutPolicy{}, err
	}
	b := policyRequest(opTimeoutGet, 0)
	b.String(ctaTimeoutName, name)
	err = c.policies(ctx, b.Message(), func(m nfnl.Message) error { return decodePolicy(m.Data, &p) })
	if err == nil && p == (TimeoutPolicy{}) {
		err = fs.ErrNotExist
	}
	return p, err
}

// CreateTimeoutPolicy makes a policy. Name, Family and Proto are required.
// Timeouts are whole seconds from 1 s to 49 days; those that are zero are
// copied from the namespace's own as they are now (DefaultTimeouts). One of the
// same name is fs.ErrExist; a protocol that the kernel does not track is
// errors.ErrUnsupported.
func (c *Conn) CreateTimeoutPolicy(ctx context.Context, p TimeoutPolicy) error {
	return c.setPolicy(ctx, "create timeout policy", &p, nfnl.Create|nfnl.Exclude)
}

// ReplaceTimeoutPolicy makes a policy or, if there is one of the same name,
// changes all of its timeouts. Connections that have the policy count with the
// new ones from their next packet on. A policy cannot change its Family or
// Proto: that is EINVAL.
func (c *Conn) ReplaceTimeoutPolicy(ctx context.Context, p TimeoutPolicy) error {
	return c.setPolicy(ctx, "replace timeout policy", &p, nfnl.Create|nfnl.Replace)
}

func (c *Conn) setPolicy(ctx context.Context, op string, p *TimeoutPolicy, flags uint16) error {
	req, err := p.encode(flags)
	if err == nil {
		err = c.policies(ctx, req, nil)
	}
	return opError(op, err)
}

// DeleteTimeoutPolicy removes a policy. There being none is fs.ErrNotExist;
// EBUSY is one that is in use: see TimeoutPolicy.Use. Kernels that count
// connections as uses would remove such a policy, and its connections would
// count with the namespace's timeouts again: they are not asked to.
func (c *Conn) DeleteTimeoutPolicy(ctx context.Context, name string) error {
	return opError("delete timeout policy", c.deletePolicy(ctx, name))
}

func (c *Conn) deletePolicy(ctx context.Context, name string) error {
	p, err := c.policy(ctx, name)
	if err != nil {
		return err
	}
	b := policyRequest(opTimeoutDelete, 0)
	b.String(ctaTimeoutName, name)
	err = error(syscall.EBUSY)
	if p.Use <= 1 {
		err = c.policies(ctx, b.Message(), nil)
	}
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("policy %s: %w: rules or connections use it", name, err)
	}
	return err
}

// policies makes a request. EINVAL is also what the request itself may be
// answered, and so is told apart from that of a plain dump.
func (c *Conn) policies(ctx context.Context, req nfnl.Message, fn func(nfnl.Message) error) error {
	err := c.nl.Do(ctx, req, fn)
	if !errors.Is(err, syscall.EINVAL) {
		return err
	}
	for _, dumped := range c.nl.Dump(ctx, policyRequest(opTimeoutGet, 0).Message()) {
		if errors.Is(dumped, syscall.EINVAL) {
			return noPolicies(dumped)
		}
	}
	return err
}

// DefaultTimeouts returns the timeouts that the network namespace uses where no
// policy says otherwise. Unlike ReadSettings it sees them in any namespace that
// the Conn is in, and TCPSynSent2 too. Those of protocols that the kernel does
// not track are zero. It takes nfnetlink_cttimeout, without which it is
// errors.ErrUnsupported.
func (c *Conn) DefaultTimeouts(ctx context.Context) (Timeouts, error) {
	var t Timeouts
	for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoICMP, ProtoICMPv6, ProtoGRE, ProtoSCTP, ProtoGeneric} {
		b := policyRequest(opTimeoutDefaultGet, 0)
		b.U16(ctaTimeoutL3Proto, uint16(proto.family()))
		b.U8(ctaTimeoutL4Proto, uint8(proto))
		err := c.policies(ctx, b.Message(), func(m nfnl.Message) error {
			var p TimeoutPolicy
			err := decodePolicy(m.Data, &p)
			t.take(p.Proto, p.Timeouts)
			return err
		})
		if errors.Is(err, syscall.EOPNOTSUPP) {
			continue // not a protocol of this kernel
		}
		if err != nil {
			return Timeouts{}, opError("default timeouts", err)
		}
	}
	return t, nil
}

// family is one that the protocol is used over.
func (p Proto) family() Family {
	if p == ProtoICMPv6 {
		return FamilyIPv6
	}
	return FamilyIPv4
}
