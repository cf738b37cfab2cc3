package conntrack

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	subsystemTimeout = 8 // NFNL_SUBSYS_CTNETLINK_TIMEOUT

	opTimeoutNew        = 0 // IPCTNL_MSG_TIMEOUT_NEW
	opTimeoutGet        = 1 // IPCTNL_MSG_TIMEOUT_GET
	opTimeoutDelete     = 2 // IPCTNL_MSG_TIMEOUT_DELETE
	opTimeoutDefaultGet = 4 // IPCTNL_MSG_TIMEOUT_DEFAULT_GET

	maxPolicyName = 31 // CTNL_TIMEOUT_NAME_MAX without its NUL
)

// enum ctattr_timeout
const (
	ctaTimeoutName    = 1 // CTA_TIMEOUT_NAME
	ctaTimeoutL3Proto = 2 // CTA_TIMEOUT_L3PROTO
	ctaTimeoutL4Proto = 3 // CTA_TIMEOUT_L4PROTO
	ctaTimeoutData    = 4 // CTA_TIMEOUT_DATA
	ctaTimeoutUse     = 5 // CTA_TIMEOUT_USE
)

// timeoutAttrs are where the attributes of a protocol's CTA_TIMEOUT_DATA go:
// that of number 1 first.
type timeoutAttrs []func(*Timeouts) *time.Duration

var (
	timeoutsGeneric = timeoutAttrs{ // enum ctattr_timeout_generic
		func(t *Timeouts) *time.Duration { return &t.Generic },
	}
	timeoutsTCP = timeoutAttrs{ // enum ctattr_timeout_tcp
		func(t *Timeouts) *time.Duration { return &t.TCPSynSent },
		func(t *Timeouts) *time.Duration { return &t.TCPSynRecv },
		func(t *Timeouts) *time.Duration { return &t.TCPEstablished },
		func(t *Timeouts) *time.Duration { return &t.TCPFinWait },
		func(t *Timeouts) *time.Duration { return &t.TCPCloseWait },
		func(t *Timeouts) *time.Duration { return &t.TCPLastAck },
		func(t *Timeouts) *time.Duration { return &t.TCPTimeWait },
		func(t *Timeouts) *time.Duration { return &t.TCPClose },
		func(t *Timeouts) *time.Duration { return &t.TCPSynSent2 },
		func(t *Timeouts) *time.Duration { return &t.TCPMaxRetrans },
		func(t *Timeouts) *time.Duration { return &t.TCPUnacknowledged },
	}
	timeoutsUDP = timeoutAttrs{ // enum ctattr_timeout_udp, ctattr_timeout_udplite
		func(t *Timeouts) *time.Duration { return &t.UDP },
		func(t *Timeouts) *time.Duration { return &t.UDPStream },
	}
	timeoutsICMP = timeoutAttrs{ // enum ctattr_timeout_icmp
		func(t *Timeouts) *time.Duration { return &t.ICMP },
	}
	timeoutsICMPv6 = timeoutAttrs{ // enum ctattr_timeout_icmpv6
		func(t *Timeouts) *time.Duration { return &t.ICMPv6 },
	}
	timeoutsGRE = timeoutAttrs{ // enum ctattr_timeout_gre
		func(t *Timeouts) *time.Duration { return &t.GRE },
		func(t *Timeouts) *time.Duration { return &t.GREStream },
	}
	timeoutsSCTP = timeoutAttrs{ // enum ctattr_timeout_sctp
		func(t *Timeouts) *time.Duration { return &t.SCTPClosed },
		func(t *Timeouts) *time.Duration { return &t.SCTPCookieWait },
		func(t *Timeouts) *time.Duration { return &t.SCTPCookieEchoed },
		func(t *Timeouts) *time.Duration { return &t.SCTPEstablished },
		func(t *Timeouts) *time.Duration { return &t.SCTPShutdownSent },
		func(t *Timeouts) *time.Duration { return &t.SCTPShutdownRecd },
		func(t *Timeouts) *time.Duration { return &t.SCTPShutdownAckSent },
		func(t *Timeouts) *time.Duration { return &t.SCTPHeartbeatSent },
	}
)

func timeoutsOf(p Proto) timeoutAttrs {
	switch p {
	case ProtoTCP:
		return timeoutsTCP
	case ProtoUDP, ProtoUDPLite:
		return timeoutsUDP
	case ProtoICMP:
		return timeoutsICMP
	case ProtoICMPv6:
		return timeoutsICMPv6
	case ProtoGRE:
		return timeoutsGRE
	case ProtoSCTP:
		return timeoutsSCTP
	case ProtoGeneric:
		return timeoutsGeneric
	}
	return nil
}

// Of returns the timeouts of one protocol, as a TimeoutPolicy has them: the
// others are zero.
func (t Timeouts) Of(p Proto) Timeouts {
	var only Timeouts
	only.take(p, t)
	return only
}

// take sets the timeouts of a protocol to those of from.
func (t *Timeouts) take(p Proto, from Timeouts) {
	for _, at := range timeoutsOf(p) {
		*at(t) = *at(&from)
	}
}

func policyRequest(op uint8, flags uint16) *nfnl.Builder {
	return nfnl.NewNetfilter(subsystemTimeout, op, flags, familyUnspec)
}

// decodePolicy reads the payload of an IPCTNL_MSG_TIMEOUT_NEW or _DEFAULT_SET
// message. On error *p is the zero TimeoutPolicy.
func decodePolicy(b []byte, p *TimeoutPolicy) error {
	*p = TimeoutPolicy{}
	if len(b) < nfgenmsgLen {
		return errShort
	}
	err := p.decode(b[nfgenmsgLen:])
	if err != nil {
		*p = TimeoutPolicy{}
	}
	return err
}

func (p *TimeoutPolicy) decode(b []byte) error {
	var data []byte
	a := nfnl.Walk(b)
	for a.Next() {
		switch a.Type {
		case ctaTimeoutName:
			p.Name = strings.ToValidUTF8(a.String(), "?")
		case ctaTimeoutL3Proto:
			p.Family = Family(a.U16())
		case ctaTimeoutL4Proto:
			p.Proto = Proto(a.U8())
		case ctaTimeoutData:
			data = a.Value
		case ctaTimeoutUse:
			p.Use = a.U32()
		}
	}
	if err := a.Err(); err != nil {
		return err
	}
	return p.Timeouts.decode(data, p.Proto)
}

// decode reads the timeouts of a protocol, in seconds.
func (t *Timeouts) decode(b []byte, p Proto) error {
	attrs := timeoutsOf(p)
	a := nfnl.Walk(b)
	for a.Next() {
		if i := int(a.Type) - 1; i >= 0 && i < len(attrs) {
			*attrs[i](t) = time.Duration(a.U32()) * time.Second
		}
	}
	return a.Err()
}

func (p *TimeoutPolicy) encode(flags uint16) (nfnl.Message, error) {
	if err := p.check(); err != nil {
		return nfnl.Message{}, err
	}
	b := policyRequest(opTimeoutNew, flags)
	b.String(ctaTimeoutName, p.Name)
	b.U16(ctaTimeoutL3Proto, uint16(p.Family))
	b.U8(ctaTimeoutL4Proto, uint8(p.Proto))
	b.Nested(ctaTimeoutData, func() {
		for i, at := range timeoutsOf(p.Proto) {
			if d := *at(&p.Timeouts); d != 0 {
				b.U32(uint16(i+1), uint32(d/time.Second))
			}
		}
	})
	return b.Message(), nil
}

// check says why the kernel could not take p, or would take something else.
func (p *TimeoutPolicy) check() error {
	if err := checkPolicyName(p.Name); err != nil {
		return err
	}
	switch {
	case p.Family != FamilyIPv4 && p.Family != FamilyIPv6:
		return fmt.Errorf("family %v: want FamilyIPv4 or FamilyIPv6", p.Family)
	case timeoutsOf(p.Proto) == nil:
		return fmt.Errorf("protocol %v: has no timeouts of its own: %w", p.Proto, errors.ErrUnsupported)
	case p.Timeouts != p.Timeouts.Of(p.Proto):
		return fmt.Errorf("timeouts of other protocols than %v are set", p.Proto)
	}
	for _, at := range timeoutsOf(p.Proto) {
		if d := *at(&p.Timeouts); d != 0 && (d < time.Second || d > maxTimeout || d%time.Second != 0) {
			return fmt.Errorf("timeout %v: want whole seconds from 1s to %v", d, maxTimeout)
		}
	}
	return nil
}

func checkPolicyName(name string) error {
	if name == "" || len(name) > maxPolicyName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("policy name %q: want 1 to %d bytes without NUL", name, maxPolicyName)
	}
	return nil
}
