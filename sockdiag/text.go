package sockdiag

import (
	"net/netip"
	"strconv"
	"time"
)

// Layout chooses what Socket.Append writes after the addresses.
type Layout uint8

// The parts of a line that ss shows when asked for them, in their order.
const (
	// LayoutNetid is the column Netid before all others: ss -tu.
	LayoutNetid Layout = 1 << iota
	// LayoutTimer is timer:(…), ss -o, and with LayoutInfo the options of
	// TCPInfo.
	LayoutTimer
	// LayoutExtended is uid, ino, sk, fwmark, v6only and the directions that
	// are open: ss -e. The cgroup is left out: ss shows its path, and a
	// Socket has its ID.
	LayoutExtended
	// LayoutTOS is tos, tclass and class_id: ss --tos.
	LayoutTOS
	// LayoutOptions is inet-sockopt:(…): ss --inet-sockopt.
	LayoutOptions
	// LayoutMemory is skmem:(…): ss -m.
	LayoutMemory
	// LayoutInfo is TCPInfo and the congestion control: ss -i.
	LayoutInfo
)

// String returns the socket as ss -tuwHOnoe shows it: the layouts Netid, Timer
// and Extended.
func (s Socket) String() string {
	return string(s.Append(nil, LayoutNetid|LayoutTimer|LayoutExtended))
}

// AppendText appends String.
func (s Socket) AppendText(b []byte) ([]byte, error) {
	return s.Append(b, LayoutNetid|LayoutTimer|LayoutExtended), nil
}

// Append appends the socket as a line of ss -n -H -O, word for word, with one
// blank between the columns:
//
//	tcp ESTAB 0 0 192.0.2.1:443 198.51.100.7:40000 timer:(keepalive,119min,0) uid:33 ino:41 sk:1a <->
//
// Interfaces are shown by number, %if2, as ss does with those that it cannot
// name. A backlog that is not known (UnknownBacklog) is written as 0. ReadSockets
// reads the line back.
func (s Socket) Append(b []byte, layout Layout) []byte {
	if layout&LayoutNetid != 0 {
		b = append(append(b, s.Protocol.String()...), ' ')
	}
	b = append(b, s.State.SS()...)
	recv, send := s.RecvQueue, s.SendQueue
	if s.State == Listen {
		recv, send = s.AcceptQueue, s.Backlog
	}
	b = appendUint(append(b, ' '), uint64(recv))
	b = appendUint(append(b, ' '), uint64(send))
	b = s.appendEnd(append(b, ' '), s.Local, s.Interface)
	b = s.appendEnd(append(b, ' '), s.Remote, 0)
	if layout&LayoutTimer != 0 {
		b = s.appendTimer(b)
	}
	if layout&LayoutExtended != 0 {
		b = s.appendExtended(b)
	}
	if layout&LayoutTOS != 0 {
		b = s.appendTOS(b)
	}
	if layout&LayoutOptions != 0 && s.Has(FieldOptions) {
		b = s.Options.append(b)
	}
	if layout&LayoutMemory != 0 && s.Has(FieldMemory) {
		b = s.Memory.append(b)
	}
	if layout&LayoutInfo != 0 {
		b = s.appendInfo(b, layout&LayoutTimer != 0)
	}
	return b
}

func appendUint(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

// appendKey writes " key:n".
func appendKey(b []byte, key string, n uint64) []byte {
	return appendUint(append(append(append(b, ' '), key...), ':'), n)
}

// appendHex writes as C's %#x: of 0 it is 0.
func appendHex(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return appendKey(b, key, 0)
	}
	b = append(append(append(b, ' '), key...), ":0x"...)
	return strconv.AppendUint(b, n, 16)
}

// appendEnd writes an address and port as inet_addr_print does: the address
// that is any is * when it takes IPv4 too.
func (s *Socket) appendEnd(b []byte, end netip.AddrPort, device uint32) []byte {
	a := end.Addr()
	switch {
	case s.Family == IPv6 && a == netip.IPv6Unspecified() && !s.V6Only:
		b = append(b, '*')
	case s.Family == IPv6 && a.Is4():
		b = append(netip.AddrFrom16(a.As16()).AppendTo(append(b, '[')), ']')
	case a.Is6():
		b = append(a.AppendTo(append(b, '[')), ']')
	default:
		b = a.AppendTo(b)
	}
	if device != 0 {
		b = appendUint(append(b, "%if"...), uint64(device))
	}
	if end.Port() == 0 {
		return append(b, ":*"...)
	}
	return appendUint(append(b, ':'), uint64(end.Port()))
}

func (s *Socket) appendTimer(b []byte) []byte {
	if s.Timer == TimerOff || s.Has(UnknownTimer) {
		return b
	}
	name := "unknown"
	if int(s.Timer) < len(timerNames) {
		name = timerNames[s.Timer]
	}
	b = append(append(append(b, " timer:("...), name...), ',')
	b = appendDuration(b, s.Expires)
	return append(appendUint(append(b, ','), uint64(s.Retransmits)), ')')
}

// appendDuration writes as print_ms_timer does: the longer, the coarser;
// 1.204ms is more than a second.
func appendDuration(b []byte, d time.Duration) []byte {
	minutes := uint64(d / time.Minute)
	seconds := uint64(d / time.Second % 60)
	millis := uint64(d / time.Millisecond % 1000)
	if minutes > 0 {
		b, millis = append(appendUint(b, minutes), "min"...), 0
		if minutes > 9 {
			seconds = 0
		}
	}
	if seconds > 9 {
		millis = 0
	}
	switch {
	case seconds > 0 && millis > 0:
		b = append(appendUint(b, seconds), '.')
	case seconds > 0:
		b = append(appendUint(b, seconds), "sec"...)
	}
	if millis > 0 {
		b = append(b, byte('0'+millis/100), byte('0'+millis/10%10), byte('0'+millis%10), 'm', 's')
	}
	return b
}

func (s *Socket) appendExtended(b []byte) []byte {
	if s.UID != 0 {
		b = appendKey(b, "uid", uint64(s.UID))
	}
	if !s.Has(UnknownOwner) {
		b = appendKey(b, "ino", uint64(s.Inode))
	}
	if s.Cookie != 0 { // that of none
		b = strconv.AppendUint(append(b, " sk:"...), s.Cookie, 16)
	}
	if s.Mark != 0 {
		b = appendHex(b, "fwmark", uint64(s.Mark))
	}
	if s.Has(FieldV6Only) && s.V6Only {
		b = append(b, " v6only:1"...)
	} else if s.Has(FieldV6Only) {
		b = append(b, " v6only:0"...)
	}
	if s.Has(FieldShutdown) {
		b = append(b, " <->"...)
		if s.Shutdown&ShutdownReceive != 0 {
			b[len(b)-3] = '-'
		}
		if s.Shutdown&ShutdownSend != 0 {
			b[len(b)-1] = '-'
		}
	}
	return b
}

func (s *Socket) appendTOS(b []byte) []byte {
	if s.Has(FieldTOS) {
		b = appendHex(b, "tos", uint64(s.TOS))
	}
	if s.Has(FieldTClass) {
		b = appendHex(b, "tclass", uint64(s.TClass))
	}
	if s.Has(FieldClassID) {
		b = appendHex(b, "class_id", uint64(s.ClassID))
	}
	return b
}

func (o Options) append(b []byte) []byte {
	b = append(b, " inet-sockopt: ("...)
	for i, name := range optionNames {
		if o&(1<<i) != 0 {
			b = append(append(b, ' '), name...)
		}
	}
	return append(b, ')')
}

func (m *Memory) append(b []byte) []byte {
	b = append(b, " skmem:("...)
	for _, v := range [...]struct {
		key string
		n   uint32
	}{
		{"r", m.RcvAlloc}, {",rb", m.RcvBuf}, {",t", m.SndAlloc}, {",tb", m.SndBuf}, {",f", m.FwdAlloc},
		{",w", m.SndQueued}, {",o", m.OptMem}, {",bl", m.RcvBacklog}, {",d", m.Drops},
	} {
		b = appendUint(append(b, v.key...), uint64(v.n))
	}
	return append(b, ')')
}
