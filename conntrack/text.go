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
	// LayoutLabels is the trailing labels=, as conntrack -L -o labels, with
	// the numbers of the labels for their names in
	// /etc/xtables/connlabel.conf.
	LayoutLabels
	// LayoutTimes is [start=…] and [stop=…], as conntrack -L -o ktimestamp: in
	// whole seconds of time.Local, which the text does not name.
	LayoutTimes
	// LayoutAge is delta-time=, which the tools write unasked: the seconds
	// from Start to Stop, or to now.
	LayoutAge
	// LayoutAt is the leading instant of an event, as conntrack -E -o
	// timestamp: microseconds since the Unix epoch.
	LayoutAt
	// LayoutPort is the trailing [USERSPACE] and portid= of an event that a
	// request caused, as conntrack -E -o userspace.
	LayoutPort
)

// AppendText appends f as conntrack -L -o extended,id writes it, without its
// delta-time= and a line end; ReadFlows reads it back. Values that are absent
// are left out, so that a line of /proc/net/nf_conntrack comes back as it was,
// save its spacing, its long form of IPv6 addresses and the keys this package
// does not know. The error is always nil.
func (f Flow) AppendText(b []byte) ([]byte, error) {
	return f.Append(b, LayoutFamily|LayoutID), nil
}

// String returns f as AppendText writes it.
func (f Flow) String() string { return string(f.Append(nil, LayoutFamily|LayoutID)) }

// Append appends f in the given layout. Those of events change nothing.
func (f Flow) Append(b []byte, layout Layout) []byte {
	b = f.appendHead(b, layout)
	b = f.Original.append(b)
	b = appendKey(b, " zone-orig=", uint64(f.OriginalZone), f.OriginalZone != 0)
	b = f.appendCounter(b, f.OriginalCounter)
	if f.Unreplied() {
		b = append(b, " [UNREPLIED]"...)
	}
	b = f.Reply.append(append(b, ' '))
	b = appendKey(b, " zone-reply=", uint64(f.ReplyZone), f.ReplyZone != 0)
	b = f.appendCounter(b, f.ReplyCounter)
	return f.appendTail(b, layout)
}

// appendHead writes what stands before the tuples.
func (f *Flow) appendHead(b []byte, layout Layout) []byte {
	if layout&LayoutFamily != 0 {
		b = appendFamily(b, f.Original.Src)
	}
	b = appendPadded(b, f.Original.Proto.name())
	b = append(strconv.AppendUint(b, uint64(f.Original.Proto), 10), ' ')
	if f.Has(FieldTimeout) {
		b = append(strconv.AppendInt(b, int64(f.Timeout/time.Second), 10), ' ')
	}
	switch {
	case f.Has(FieldTCP):
		b = append(append(b, f.TCP.State.String()...), ' ')
	case f.Has(FieldSCTP):
		b = append(append(b, f.Details().SCTP.State.String()...), ' ')
	case f.Has(FieldDCCP):
		b = append(append(b, f.Details().DCCP.State.String()...), ' ')
	}
	return b
}

// appendTail writes what stands behind the tuples.
func (f *Flow) appendTail(b []byte, layout Layout) []byte {
	b = f.appendFlag(b)
	b = appendKey(b, " mark=", uint64(f.Mark), f.Has(FieldMark))
	b = appendKey(b, " secmark=", uint64(f.Secmark), f.Has(FieldSecmark))
	if f.Has(FieldSecurityContext) {
		b = append(append(b, " secctx="...), f.Details().SecurityContext...)
	}
	b = appendKey(b, " zone=", uint64(f.Zone), f.Has(FieldZone))
	b = appendKey(b, " delta-time=", f.age(), layout&LayoutAge != 0 && f.Has(FieldStart))
	b = appendTime(b, " [start=", f.Start, layout&LayoutTimes != 0 && f.Has(FieldStart))
	b = appendTime(b, " [stop=", f.Stop, layout&LayoutTimes != 0 && f.Has(FieldStop))
	if f.Has(FieldHelper) {
		b = append(append(b, " helper="...), f.Details().Helper...)
	}
	b = appendKey(b, " use=", uint64(f.Use), f.Has(FieldUse))
	b = appendKey(b, " id=", uint64(f.ID), layout&LayoutID != 0 && f.Has(FieldID))
	if layout&LayoutLabels != 0 && f.Has(FieldLabels) {
		b = appendLabels(b, f.Details().Labels)
	}
	return b
}

// appendLabels writes no = after the word when no label is set, as the tool
// when none has a name.
func appendLabels(b []byte, l Labels) []byte {
	b = append(b, " labels"...)
	if l.IsZero() {
		return b
	}
	return l.append(append(b, '='))
}

// age is the whole seconds between the seconds that Start and Stop are in.
func (f *Flow) age() uint64 {
	end := f.Stop
	if end == 0 {
		end = Timestamp(time.Now().UnixNano())
	}
	return uint64(end/Timestamp(time.Second) - f.Start/Timestamp(time.Second))
}

// appendTime writes an instant as ctime(3) does.
func appendTime(b []byte, key string, t Timestamp, ok bool) []byte {
	if !ok {
		return b
	}
	return append(time.Unix(0, int64(t)).AppendFormat(append(b, key...), time.ANSIC), ']')
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
	switch v4, ok := compatible(a); {
	case !a.IsValid():
		return append(b, '-')
	case ok:
		return v4.AppendTo(append(b, "::"...))
	}
	return a.AppendTo(b)
}

// compatible returns the IPv4 address in an IPv4-compatible one, ::192.0.2.1,
// which inet_ntop(3) writes so. ::1 and the like are none.
func compatible(a netip.Addr) (v4 netip.Addr, ok bool) {
	b := a.As16()
	ok = a.Is6() && [12]byte(b[:12]) == [12]byte{} && [2]byte(b[12:14]) != [2]byte{}
	return netip.AddrFrom4([4]byte(b[12:])), ok
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
