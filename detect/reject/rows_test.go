package reject

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The evidence of the tests is text, of IPv4. eachFamily makes IPv6 of it.

const (
	host   = "10.1.32.70"  // that explains
	peer   = "10.1.41.192" // of its connection
	router = "10.1.99.1"   // between them
)

var toIPv6 = strings.NewReplacer(
	host, "2001:db8:32::70", peer, "2001:db8:41::192", router, "2001:db8:99::1", "ipv4     2", "ipv6     10",
)

// family turns text of IPv4 into that of a family.
type family func(string) string

func eachFamily(t *testing.T, test func(*testing.T, family)) {
	t.Run("IPv4", func(t *testing.T) { test(t, func(s string) string { return s }) })
	t.Run("IPv6", func(t *testing.T) { test(t, toIPv6.Replace) })
}

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// Parts of entries: the two directions of the connection.
const (
	fromHost = "src=10.1.32.70 dst=10.1.41.192 sport=9102 dport=51522 "
	fromPeer = "src=10.1.41.192 dst=10.1.32.70 sport=51522 dport=9102 "
)

// seen is evidence as text. Of what can be looked up, "" was not looked for and
// "-" was not found.
type seen struct {
	// packet is direction and TCP flags: "in SYN", "out PSH|ACK", "in ?" for flags
	// unknown; or a protocol: "in udp 53 9102", "in icmp 8", "in proto 47",
	// "in fragment".
	packet string
	how    Refusal
	state  State
	reason string
	answer string // the reason of the SYN|ACK
	icmp   string // the address that sent the error, " port" for port unreachable
	entry  string // as conntrack -L writes it
	ended  string // the same; expired if it has no timeout
	socket string // state, " orphan", " idle=seconds"
	listen string // the address listened on

	settings map[string]string // those that are not the default
	unset    bool              // settings were not read

	hook, local        string // "forward", "output", "input"; "no"
	elsewhere, control string // as entry
	rule               string // its text; it is rule handle 12 of inet filter input
	rules              *Rules
	counters           *Counters
	usage              *conntrack.Usage
	load               *Load
	by                 uint32 // netlink port that deleted the ended entry
	listened           int    // seconds before the packet
	kernel             string
}

func (s seen) evidence(t testing.TB, f family) Evidence {
	t.Helper()
	e := Evidence{Refusal: s.how, State: s.state, Reason: s.reason, Answer: s.answer}
	if s.packet != "" {
		e.Packet = Found(header(t, f, s.packet))
	}
	if from, port, _ := strings.Cut(s.icmp, " "); from != "" {
		e.ICMP = Found(prohibition(f, from))
		if port != "" {
			e.ICMP.Value.ICMPCode = map[bool]uint8{false: 3, true: 4}[e.ICMP.Value.Src.Is6()]
		}
	}
	e.Entry = lookup(s.entry, func(line string) conntrack.Flow { return flow(t, f(line)) })
	e.Ended = lookup(s.ended, func(line string) Ended {
		return Ended{Event: conntrack.Event{Type: conntrack.EventDestroy, Port: s.by, Flow: flow(t, f(line))}, At: now}
	})
	e.Socket = lookup(s.socket, func(text string) sockdiag.Socket { return socket(t, f, text) })
	e.Listener = lookup(s.listen, func(addr string) sockdiag.Socket {
		return sockdiag.Socket{State: sockdiag.Listen, Local: netip.AddrPortFrom(netip.MustParseAddr(f(addr)), 9102)}
	})
	if !s.unset {
		e.Settings = Found(settings(t, s.settings))
	}
	s.context(t, f, &e)
	return e
}

// context is what beside the connection is known.
func (s seen) context(t testing.TB, f family, e *Evidence) {
	t.Helper()
	entry := func(line string) conntrack.Flow { return flow(t, f(line)) }
	e.Hook = lookup(s.hook, func(name string) nflog.Hook {
		return map[string]nflog.Hook{"input": nflog.Input, "forward": nflog.Forward, "output": nflog.Output}[name]
	})
	e.Local = lookup(s.local, func(yes string) bool { return yes == "yes" })
	e.Elsewhere, e.Control = lookup(s.elsewhere, entry), lookup(s.control, entry)
	e.Rule = lookup(f(s.rule), func(text string) Rule { return Rule{"inet", "filter", "input", 12, text, "drop"} })
	e.Rules, e.Counters, e.Usage, e.Load = pointed(s.rules), pointed(s.counters), pointed(s.usage), pointed(s.load)
	if s.listened > 0 {
		e.At, e.Listening = now, now.Add(-time.Duration(s.listened)*time.Second)
	}
	e.Kernel = s.kernel
}

// pointed is a Lookup that found what p points to, or did not look.
func pointed[T any](p *T) Lookup[T] {
	if p == nil {
		return Lookup[T]{}
	}
	return Found(*p)
}

func lookup[T any](text string, parse func(string) T) Lookup[T] {
	switch text {
	case "":
		return Lookup[T]{}
	case "-":
		return NotFound[T]()
	}
	return Found(parse(text))
}

// header is a packet of the connection.
func header(t testing.TB, f family, text string) packet.Header {
	t.Helper()
	direction, flags, _ := strings.Cut(text, " ")
	h := packet.Header{
		Src: netip.MustParseAddr(f(peer)), Dst: netip.MustParseAddr(f(host)), SrcPort: 51522, DstPort: 9102,
		Proto: packet.ProtoTCP, Seq: 1000, Have: packet.HaveProto | packet.HavePorts | packet.HaveSeq,
	}
	if direction == "out" {
		h.Src, h.Dst, h.SrcPort, h.DstPort = h.Dst, h.Src, h.DstPort, h.SrcPort
	}
	words := strings.Fields(flags)
	switch kind := words[0]; kind {
	case "?":
	case "udp":
		h.Proto, h.Seq, h.Have = packet.ProtoUDP, 0, packet.HaveProto|packet.HavePorts
		if len(words) == 3 {
			h.SrcPort, h.DstPort = portNumber(t, words[1]), portNumber(t, words[2])
		}
	case "icmp", "proto", "fragment":
		h.SrcPort, h.DstPort, h.Seq, h.Have = 0, 0, 0, packet.HaveProto
		h.Fragment = kind == "fragment"
		if kind == "proto" {
			h.Proto = uint8(portNumber(t, words[1]))
		}
		if kind == "icmp" {
			h.Proto, h.ICMPType, h.ICMPID, h.Have = packet.ProtoICMP, uint8(portNumber(t, words[1])), 7, packet.HaveProto|packet.HaveICMP|packet.HaveICMPID
		}
		if kind == "icmp" && h.Src.Is6() {
			h.Proto, h.ICMPType = packet.ProtoICMPv6, map[uint8]uint8{8: 128, 0: 129, 135: 135}[h.ICMPType]
		}
	default:
		h.Have |= packet.HaveFlags
		h.Flags = tcpFlags(t, flags)
	}
	return h
}

func portNumber(t testing.TB, s string) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

func tcpFlags(t testing.TB, text string) (flags packet.TCPFlags) {
	t.Helper()
	for f := packet.FIN; f != 0; f <<= 1 {
		if strings.Contains(text, f.String()) {
			flags |= f
		}
	}
	if flags.String() != text {
		t.Fatalf("flags %q were read as %v", text, flags)
	}
	return flags
}

// prohibition is the ICMP error that REJECT sends.
func prohibition(f family, from string) packet.Header {
	h := packet.Header{Src: netip.MustParseAddr(f(from)), Dst: netip.MustParseAddr(f(peer)), Have: packet.HaveProto | packet.HaveICMP}
	if from != host {
		h.Dst = netip.MustParseAddr(f(host))
	}
	h.Proto, h.ICMPType, h.ICMPCode = packet.ProtoICMP, 3, 13
	if h.Src.Is6() {
		h.Proto, h.ICMPType, h.ICMPCode = packet.ProtoICMPv6, 1, 1
	}
	return h
}

func flow(t testing.TB, line string) conntrack.Flow {
	t.Helper()
	f, err := conntrack.ParseFlow(line)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// socket is the host's of the connection.
func socket(t testing.TB, f family, text string) sockdiag.Socket {
	t.Helper()
	words := strings.Fields(text)
	state, err := sockdiag.ParseState(words[0])
	if err != nil {
		t.Fatal(err)
	}
	s := sockdiag.Socket{
		State: state, Inode: 4711,
		Local:  netip.AddrPortFrom(netip.MustParseAddr(f(host)), 9102),
		Remote: netip.AddrPortFrom(netip.MustParseAddr(f(peer)), 51522),
	}
	for _, w := range words[1:] {
		var idle int
		if w == "orphan" {
			s.Inode = 0
		} else if _, err := fmt.Sscanf(w, "idle=%d", &idle); err == nil {
			d := time.Duration(idle) * time.Second
			s.Fields, s.Info = sockdiag.FieldInfo, sockdiag.TCPInfo{LastDataSent: d, LastDataRecv: d, LastAckRecv: d}
		}
	}
	return s
}

// settings are the kernel's defaults, some of them changed: names after
// nf_conntrack_.
func settings(t testing.TB, changed map[string]string) conntrack.Settings {
	t.Helper()
	proc := fstest.MapFS{}
	for name, value := range map[string]string{
		"tcp_loose": "1", "tcp_timeout_established": "432000", "tcp_timeout_close_wait": "60",
		"tcp_timeout_unacknowledged": "300", "tcp_be_liberal": "0", "tcp_ignore_invalid_rst": "0", "tcp_timeout_max_retrans": "300", "tcp_timeout_fin_wait": "120",
		"tcp_timeout_syn_sent": "120", "tcp_timeout_last_ack": "30", "udp_timeout": "30", "icmp_timeout": "30", "icmpv6_timeout": "30",
	} {
		if v, ok := changed[name]; ok {
			value = v
		}
		proc["sys/net/netfilter/nf_conntrack_"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	s, err := conntrack.ReadSettings(proc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lacking lists the words that text does not have.
func lacking(text string, words []string) (missing []string) {
	for _, w := range words {
		if !strings.Contains(text, w) {
			missing = append(missing, w)
		}
	}
	return missing
}
