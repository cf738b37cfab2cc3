package nft

import "fmt"

// field is a named part of a header.
type field struct {
	offset uint32
	size   int
	name   string
	format func([]byte) string
}

var ipFields = []field{
	{2, 2, "length", decimal}, {4, 2, "id", decimal}, {6, 2, "frag-off", decimal}, {8, 1, "ttl", decimal}, {9, 1, "protocol", protoText},
	{10, 2, "checksum", decimal}, {12, 4, "saddr", addrText}, {16, 4, "daddr", addrText},
}

var ip6Fields = []field{
	{4, 2, "length", decimal}, {6, 1, "nexthdr", protoText}, {7, 1, "hoplimit", decimal},
	{8, 16, "saddr", addrText}, {24, 16, "daddr", addrText},
}

var etherFields = []field{{0, 6, "daddr", hardwareText}, {6, 6, "saddr", hardwareText}, {12, 2, "type", etherText}}

var portFields = []field{{0, 2, "sport", decimal}, {2, 2, "dport", decimal}}

var transportFields = map[uint8][]field{
	TCP:     append(portFields[:2:2], field{4, 4, "sequence", decimal}, field{8, 4, "ackseq", decimal}, field{13, 1, "flags", flagsText}, field{14, 2, "window", decimal}),
	UDP:     append(portFields[:2:2], field{4, 2, "length", decimal}),
	UDPLite: portFields,
	SCTP:    append(portFields[:2:2], field{4, 4, "vtag", decimal}),
	DCCP:    portFields,
	ICMP:    {{0, 1, "type", icmpText}, {1, 1, "code", decimal}, {4, 2, "id", decimal}, {6, 2, "sequence", decimal}},
	ICMPv6:  {{0, 1, "type", icmp6Text}, {1, 1, "code", decimal}, {4, 2, "id", decimal}, {6, 2, "sequence", decimal}},
}

// selector is what a register holds, in words, and how its values are written.
type selector struct {
	text   string
	format func([]byte) string
	// bits are the names of single bits, for keys that are sets.
	bits []bit
	// short says that a size bytes at the begin of an address are compared:
	// a prefix.
	short int
	// base is the header base that a payload is of, plus 1.
	base uint32
}

// selector names an operand.
func (l *lister) selector(o operand) selector {
	s := l.naming(o)
	if format := s.format; o.swapped {
		s.format = func(b []byte) string { return format(swapped(b)) }
	}
	return s
}

func (l *lister) naming(o operand) selector {
	switch o.kind {
	case metaKey:
		return metaSelector(o)
	case ctKey:
		return ctSelector(o)
	case payload:
		return l.payload(o)
	case constant:
		return selector{text: hexText(o.value), format: hexText}
	case other:
		return selector{text: o.text, format: l.special(o)}
	}
	return selector{text: "[unknown]", format: hexText}
}

func metaSelector(o operand) selector {
	s := selector{text: nameOf(metaNames[:], uint64(o.key)), format: nativeDecimal}
	if s.text == "" {
		s.text = fmt.Sprintf("[meta %d]", o.key)
	}
	switch o.key {
	case 3:
		s.format = markText
	case 1:
		s.format = etherText
	case 2:
		s.format = func(b []byte) string { return fmt.Sprintf("%x:%x", native(b)>>16, native(b)&0xffff) }
	case 4, 5:
		s.format = indexText
	case metaIIFName, metaOIFName, 17, 18, 26, 27:
		s.format = nameText
	case metaNFProto:
		s.format = func(b []byte) string { return named(familyNames, network(b)) }
	case metaL4Proto:
		s.format = protoText
	case 19:
		s.format = func(b []byte) string { return nameOr(packetTypes, native(b)) }
	case 31:
		s.format = func(b []byte) string { return quote(nameOr(dayNames, native(b))) }
	}
	return s
}

func ctSelector(o operand) selector {
	name := nameOf(ctNames[:], uint64(o.key))
	if name == "" {
		name = fmt.Sprintf("[%d]", o.key)
	}
	s := selector{text: "ct " + o.dir.prefix() + name, format: nativeDecimal}
	switch o.key {
	case ctState:
		s.bits = stateBits
	case ctStatus:
		s.bits = statusBits
	case ctDirection:
		s.format = func(b []byte) string { return nameOr([]string{"original", "reply"}, network(b)) }
	case ctMark, 4:
		s.format = markText
	case 6:
		s.format = nameText
	case 7:
		s.format = func(b []byte) string { return named(familyNames, network(b)) }
	case 10:
		s.format = protoText
	case 8, 9, 19, 20, 21, 22:
		s.format = addrText
	case 11, 12:
		s.format = decimal
	case 5:
		s.format = func(b []byte) string { return duration(native(b)) }
	}
	return s
}

func (d Direction) prefix() string {
	switch d {
	case Original:
		return "original "
	case Reply:
		return "reply "
	}
	return ""
}

// split divides a payload into the fields that it is made of, if it is.
func (l *lister) split(o operand) (parts []operand) {
	if o.kind != payload {
		return nil
	}
	_, fields := l.header(o.key)
	for _, f := range fields {
		if f.offset == o.offset && f.size <= o.size {
			parts = append(parts, operand{kind: payload, key: o.key, offset: o.offset, size: f.size})
			o.offset, o.size = o.offset+uint32(f.size), o.size-f.size
		}
	}
	if o.size != 0 {
		return nil
	}
	return parts
}

// header is what the packet has at a base, as far as that is known.
func (l *lister) header(base uint32) (name string, fields []field) {
	switch {
	case base == linkHeader:
		return "ether", etherFields
	case base == networkHeader && l.l3 == IPv4:
		return "ip", ipFields
	case base == networkHeader && l.l3 == IPv6:
		return "ip6", ip6Fields
	case base == transportHeader && headerNames[l.l4] != "":
		return headerNames[l.l4], transportFields[l.l4]
	case base == transportHeader:
		return "th", portFields
	}
	return "", nil
}

// payload names a part of a header by what is known of the packet's protocols.
func (l *lister) payload(o operand) selector {
	header, fields := l.header(o.key)
	for _, f := range fields {
		s := selector{text: header + " " + f.name, format: f.format, base: o.key + 1}
		switch {
		case f.offset == o.offset && f.size == o.size:
			return s
		case f.offset == o.offset && o.size < f.size && f.size >= 4 && f.name[1:] == "addr":
			s.short = f.size
			return s
		}
	}
	base := nameOf([]string{"ll", "nh", "th", "ih"}, uint64(o.key))
	return selector{text: fmt.Sprintf("@%s,%d,%d", base, o.offset*8, o.size*8), format: hexText, base: o.key + 1}
}
