package conntrack

import (
	"net/netip"
	"strconv"
	"time"
)

// Layout chooses what Append writes.
type Layout uint8

// The parts of a line that not every tool writes.
const (
	// LayoutFamily is the leading "ipv4     2", as in /proc/net/nf_conntrack
	// and conntrack -L -o extended. The older /proc/net/ip_conntrack and plain
	// conntrack -L have none.
	LayoutFamily Layout = 1 << iota
	// LayoutID is the trailing id=, as conntrack -L -o id.
	LayoutID
)

// AppendText appends f as conntrack -L -o extended,id writes it, without a line
// end; ReadFlows reads it back. Values that are absent are left out, so that a
// line of /proc/net/nf_conntrack comes back as it was, save its spacing. The
// error is always nil.
func (f Flow) AppendText(b []byte) ([]byte, error) {
	return f.Append(b, LayoutFamily|LayoutID), nil
}

// String returns f as AppendText writes it.
func (f Flow) String() string { return string(f.Append(nil, LayoutFamily|LayoutID)) }

// Append appends f in the given layout.
func (f Flow) Append(b []byte, layout Layout) []byte {
	if layout&LayoutFamily != 0 {
		b = appendFamily(b, f.Original.Src)
	}
	b = appendPadded(b, f.Original.Proto.name())
	b = append(strconv.AppendUint(b, uint64(f.Original.Proto), 10), ' ')
	if f.Has(FieldTimeout) {
		b = append(strconv.AppendInt(b, int64(f.Timeout/time.Second), 10), ' ')
	}
	if f.Has(FieldTCP) {
		b = append(append(b, f.TCP.State.String()...), ' ')
	}
	b = f.Original.append(b)
	b = appendKey(b, " zone-orig=", uint64(f.OriginalZone), f.OriginalZone != 0)
	b = f.appendCounter(b, f.OriginalCounter)
	if f.Unreplied() {
		b = append(b, " [UNREPLIED]"...)
	}
	b = f.Reply.append(append(b, ' '))
	b = appendKey(b, " zone-reply=", uint64(f.ReplyZone), f.ReplyZone != 0)
	b = f.appendCounter(b, f.ReplyCounter)
	b = f.appendFlag(b)
	b = appendKey(b, " mark=", uint64(f.Mark), f.Has(FieldMark))
	b = appendKey(b, " secmark=", uint64(f.Secmark), f.Has(FieldSecmark))
	b = appendKey(b, " zone=", uint64(f.Zone), f.Has(FieldZone))
	b = appendKey(b, " use=", uint64(f.Use), f.Has(FieldUse))
	return appendKey(b, " id=", uint64(f.ID), layout&LayoutID != 0 && f.Has(FieldID))
}

// appendFlag writes what the tools write of the status: one word.
func (f *Flow) appendFlag(b []byte) []byte {
	switch {
	case f.Status&HWOffload != 0:
		return append(b, " [HW_OFFLOAD]"...)
	case f.Status&Offload != 0:
		return append(b, " [OFFLOAD]"...)
	case f.Assured():
		return append(b, " [ASSURED]"...)
	}
	return b
}

func (f *Flow) appendCounter(b []byte, c Counter) []byte {
	b = appendKey(b, " packets=", c.Packets, f.Has(FieldCounters))
	return appendKey(b, " bytes=", c.Bytes, f.Has(FieldCounters))
}

func (t *Tuple) append(b []byte) []byte {
	b = appendAddr(append(b, "src="...), t.Src)
	b = appendAddr(append(b, " dst="...), t.Dst)
	switch {
	case t.Proto == ProtoICMP || t.Proto == ProtoICMPv6:
		b = appendKey(b, " type=", uint64(t.ICMPType), true)
		b = appendKey(b, " code=", uint64(t.ICMPCode), true)
		b = appendKey(b, " id=", uint64(t.ICMPID), true)
	case t.Proto == ProtoGRE:
		b = strconv.AppendUint(append(b, " srckey=0x"...), uint64(t.SrcPort), 16)
		b = strconv.AppendUint(append(b, " dstkey=0x"...), uint64(t.DstPort), 16)
	case t.hasPorts():
		b = appendKey(b, " sport=", uint64(t.SrcPort), true)
		b = appendKey(b, " dport=", uint64(t.DstPort), true)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return a.AppendTo(b)
}

func appendFamily(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		return append(b, "ipv4     2 "...)
	}
	return append(b, "ipv6     10 "...)
}

// appendPadded writes a word as "%-8s " does.
func appendPadded(b []byte, s string) []byte {
	b = append(b, s...)
	for range max(8-len(s), 0) {
		b = append(b, ' ')
	}
	return append(b, ' ')
}

func appendKey(b []byte, key string, v uint64, ok bool) []byte {
	if !ok {
		return b
	}
	return strconv.AppendUint(append(b, key...), v, 10)
}
