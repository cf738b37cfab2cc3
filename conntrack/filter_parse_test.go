package conntrack

import (
	"cmp"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParseFilter(t *testing.T) {
	p := netip.MustParsePrefix
	tests := []struct {
		expr string
		want Filter
		back string // what String writes; empty: the expression itself
	}{
		{"", Filter{}, ""},
		{"-f ipv4", Filter{IPv4Only: true}, ""},
		{"--family=ipv6", Filter{IPv6Only: true}, "-f ipv6"},
		{"-p tcp -s 10.0.0.0/8 --dport 443 --state ESTABLISHED -u !SEEN_REPLY -m 0x1/0xff -w 7",
			Filter{Proto: ProtoTCP, Src: p("10.0.0.0/8"), DstPort: PortRange{443, 0}, TCPStates: TCPStateSet(TCPEstablished),
				StatusUnset: SeenReply, Mark: 1, MarkMask: 0xff, Zone: 7}, ""},
		{"--protonum 17", Filter{Proto: ProtoUDP}, "-p udp"},
		{"-p 112", Filter{Proto: 112}, ""},
		{"--orig-src 10.1.2.3/8 --dst 2001:db8::1", Filter{Src: p("10.0.0.0/8"), Dst: p("2001:db8::1/128")}, "-s 10.0.0.0/8 -d 2001:db8::1"},
		{"-r ::ffff:192.0.2.1 -q ::ffff:10.0.0.0/104", Filter{ReplySrc: p("192.0.2.1/32"), ReplyDst: p("10.0.0.0/8")}, "-r 192.0.2.1 -q 10.0.0.0/8"},
		{"--addr 0.0.0.0/0", Filter{Addr: p("0.0.0.0/0")}, ""},
		{"--sport 1000:2000 --dport 80:80", Filter{SrcPort: PortRange{1000, 2000}, DstPort: PortRange{80, 80}}, ""},
		{"--reply-port-src :1023 --reply-port-dst 1024: --port 53", Filter{ReplySrcPort: PortRange{0, 1023}, ReplyDstPort: PortRange{1024, 65535}, Port: PortRange{53, 0}},
			"--reply-port-src 0:1023 --reply-port-dst 1024:65535 --port 53"},
		{"-p icmp --icmp-type 8 --icmp-code 1 --icmp-id 65535", Filter{Proto: ProtoICMP, ICMPType: 8, ICMPCode: 1, ICMPID: 65535}, ""},
		{"--state SYN_SENT,CLOSE --state LISTEN", Filter{TCPStates: TCPStateSet(TCPSynSent, TCPClose, TCPSynSent2)}, "--state SYN_SENT,CLOSE,SYN_SENT2"},
		{"--state !NONE,!SYN_SENT2,!TIME_WAIT,!LAST_ACK,!CLOSE_WAIT,!FIN_WAIT,!CLOSE", Filter{TCPStates: TCPStateSet(TCPSynSent, TCPSynRecv, TCPEstablished)},
			"--state SYN_SENT,SYN_RECV,ESTABLISHED"},
		{"--state ESTABLISHED -p sctp", Filter{Proto: ProtoSCTP, SCTPStates: SCTPStateSet(SCTPEstablished)}, "-p sctp --state ESTABLISHED"},
		{"-u UNREPLIED", Filter{StatusUnset: SeenReply}, "-u !SEEN_REPLY"},
		{"-u !UNREPLIED,ASSURED --status !DYING,0x10000", Filter{StatusSet: SeenReply | Assured | 0x10000, StatusUnset: Dying}, "-u SEEN_REPLY,ASSURED,0x10000,!DYING"},
		{"-m 5", Filter{Mark: 5}, "-m 0x5"},
		{"-m 0", Filter{MarkMask: math.MaxUint32}, "-m 0x0/0xffffffff"},
		{"-w 0", Filter{InZone: true}, ""},
		{"--orig-zone 9 --reply-zone 11", Filter{OriginalZone: 9, ReplyZone: 11}, ""},
		{"-l 127,0 -l 3", Filter{Labels: LabelSet(0, 3, 127)}, "-l 0,3,127"},
		{"-t 30", Filter{MinTimeout: 30 * time.Second, MaxTimeout: 30 * time.Second}, ""},
		{"-t 1h: --packets :10", Filter{MinTimeout: time.Hour, MaxPackets: 10}, "-t 3600: --packets :10"},
		{"-t 1500ms:1m", Filter{MinTimeout: 1500 * time.Millisecond, MaxTimeout: time.Minute}, "-t 1.5s:60"},
		{"--packets 7 --bytes 10:0x20", Filter{MinPackets: 7, MaxPackets: 7, MinBytes: 10, MaxBytes: 32}, "--packets 7 --bytes 10:32"},
		{"-n -g -j", Filter{SourceNAT: true, DestinationNAT: true, Translated: true}, ""},
		{"-n 192.0.2.1 -g 10.0.0.0/8 -j ::1", Filter{SourceNATTo: p("192.0.2.1/32"), DestinationNATTo: p("10.0.0.0/8"), TranslatedTo: p("::1/128")}, ""},
		{"--src-nat=192.0.2.1", Filter{SourceNATTo: p("192.0.2.1/32")}, "-n 192.0.2.1"},
		{"--helper ftp --id 0x10", Filter{Helper: "ftp", ID: 16}, "--helper ftp -i 16"},
	}
	for _, tt := range tests {
		got, err := ParseFilter(tt.expr)
		if got != tt.want || err != nil {
			t.Errorf("%q: got %+v, %v", tt.expr, got, err)
		}
		if s := got.String(); s != cmp.Or(tt.back, tt.expr) {
			t.Errorf("%q: written back as %q", tt.expr, s)
		}
		checkBack(t, got)
	}
}

// checkBack reads back what String writes.
func checkBack(t *testing.T, f Filter) {
	t.Helper()
	if got, err := ParseFilter(f.String()); got != f || err != nil {
		t.Errorf("%q: read back as %q, %v", f, got, err)
	}
}

// TestFilterStringMeaning writes filters that ParseFilter does not make; what it
// reads back means the same.
func TestFilterStringMeaning(t *testing.T) {
	if s := (Filter{IPv4Only: true, IPv6Only: true}).String(); s != "-f ipv4 -f ipv6" {
		t.Errorf("both families: %q", s)
	}
	for _, tt := range []struct{ is, equal Filter }{
		{Filter{InZone: true, Zone: 7}, Filter{Zone: 7}},
		{Filter{SCTPStates: 2}, Filter{SCTPStates: 2, Proto: ProtoSCTP}},
		{Filter{SourceNAT: true, SourceNATTo: netip.MustParsePrefix("::1/128")}, Filter{SourceNATTo: netip.MustParsePrefix("::1/128")}},
		{everyPart(), everyPart()},
	} {
		want := tt.equal
		want.Translated, want.SourceNAT, want.DestinationNAT = false, false, false
		want.ReplySrc = unmapped(want.ReplySrc)
		if got, err := ParseFilter(tt.is.String()); got != want || err != nil {
			t.Errorf("%q: got %q, %v", tt.is, got, err)
		}
	}
}

func TestParseFilterErrors(t *testing.T) {
	tests := []struct {
		expr   string
		column int
		token  string
		msg    string
		want   string // of what is accepted
	}{
		{"-x", 1, "-x", "no such option", "-s, --src, --orig-src"},
		{"-p tcp 80", 8, "80", "no such option", "--dport"},
		{"  --dport", 10, "", "--dport wants a value", "FROM:TO"},
		{"--dport=", 9, "", "--dport wants a value", "FROM:TO"},
		{"-f ipv4 -f ipv4", 9, "-f", "is given twice", "one -f"},
		{"-f inet", 4, "inet", "no family", "ipv4"},
		{"-p 0", 4, "0", "no protocol", "udplite"},
		{"-p unknown", 4, "unknown", "no protocol", "tcp"},
		{" \t-p\ntpc ", 6, "tpc", "no protocol", "tcp"},
		{"-p tpc", 4, "tpc", "no protocol", "tcp"},
		{"--src=10.0.0.0/33", 7, "10.0.0.0/33", "no IP address", "prefix"},
		{"-s fe80::1%eth0", 4, "fe80::1%eth0", "no IP address", "prefix"},
		{"--dport 0", 9, "0", "port 0", "1 to 65535"},
		{"--dport :", 9, ":", "", ""}, // 0:65535: all that have ports
		{"--dport 2:1", 9, "2:1", "ends before it begins", "FROM:TO"},
		{"--dport 65536", 9, "65536", "no port", "65535"},
		{"--dport http", 9, "http", "no port", "PORT"},
		{"--dport 1:0", 9, "1:0", "port 0", "FROM"},
		{"--icmp-type 256", 13, "256", "no such number", "255"},
		{"--icmp-code 0", 13, "0", "0 cannot", "1 to 255"},
		{"--state ESTABLISH", 9, "ESTABLISH", `"ESTABLISH" is no state`, "ESTABLISHED"},
		{"--state ESTABLISHED -p udp", 9, "ESTABLISHED", "udp has no states", "states"},
		{"-u ASSURED,FOO", 4, "ASSURED,FOO", `"FOO" is no status`, "UNREPLIED"},
		{"-u 0", 4, "0", "no status", "ASSURED"},
		{"-m 1/0", 4, "1/0", "a mask of 0", "MARK/MASK"},
		{"-m 0x100000000", 4, "0x100000000", "no mark", "32 bits"},
		{"-w 65536", 4, "65536", "no zone", "65535"},
		{"-l 128", 4, "128", "no label", "127"},
		{"-l dmz", 4, "dmz", "no label", "numbers"},
		{"-t 0", 4, "0", "0 and less", "above 0"},
		{"-t -5s:", 4, "-5s:", "0 and less", "seconds"},
		{"-t 5:3", 4, "5:3", "ends before", "FROM:TO"},
		{"--packets 0:", 11, "0:", "0 and less", "above 0"},
		{"--bytes :", 9, ":", "0 and less", "FROM:"},
		{"--bytes ten", 9, "ten", "no number", "FROM:"},
		{"-n nowhere", 4, "nowhere", "no IP address", "nothing"},
		{"--id 4294967296", 6, "4294967296", "no such number", "4294967295"},
		{"é -p tcp", 1, "é", "no such option", "-p"},
	}
	for _, tt := range tests {
		f, err := ParseFilter(tt.expr)
		if tt.msg == "" {
			if err != nil {
				t.Errorf("%q: %v", tt.expr, err)
			}
			continue
		}
		e, ok := errors.AsType[*FilterError](err)
		if !ok || f != (Filter{}) {
			t.Errorf("%q: got %v, %v", tt.expr, f, err)
			continue
		}
		if e.Column != tt.column || e.Token != tt.token || !strings.Contains(e.Msg, tt.msg) || !strings.Contains(e.Want, tt.want) {
			t.Errorf("%q: %#v", tt.expr, e)
		}
	}
	const text = `conntrack: filter: column 4: "0": no protocol (accepted: icmp, tcp, udp, dccp, gre, icmpv6, sctp, udplite, or a number from 1 to 255)`
	if _, err := ParseFilter("-p 0"); err.Error() != text {
		t.Errorf("got %v", err)
	}
}

// TestFilterErrorsSayWhatIsAccepted gives each option a value that it does not
// take.
func TestFilterErrorsSayWhatIsAccepted(t *testing.T) {
	for i := range options {
		o := &options[i]
		if o.name() == "--helper" { // takes anything
			continue
		}
		for name := range strings.FieldsSeq(o.names) {
			_, err := ParseFilter(name + " ~")
			if e, ok := errors.AsType[*FilterError](err); !ok || e.Want != o.takes || e.Token != "~" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"-f ipv4 -p tcp -s 10.0.0.0/8 --dport 1:2 --state ESTABLISHED,!CLOSE -u ASSURED,!DYING -m 1/3",
		"-w 0 -l 1,2 -t 1h: --packets :5 --bytes 1:2 -n -g 10.0.0.1 -j ::/0 --helper ftp -i 4",
		"-p sctp --state ESTABLISHED --icmp-id 3 --orig-zone 4 --port :4", "-t 0.5s:1ns", "-x", "-p",
		"--helper=\xff -s ::ffff:1.2.3.4/97",
	} {
		f.Add(s)
	}
	flow := matchFlow()
	f.Fuzz(func(t *testing.T, expr string) {
		filter, err := ParseFilter(expr)
		if err != nil {
			e, ok := errors.AsType[*FilterError](err)
			if !ok || filter != (Filter{}) || e.Column < 1 || e.Column > len(expr)+1 || e.Want == "" ||
				!strings.HasPrefix(expr[e.Column-1:], e.Token) {
				t.Errorf("%q: %v, %#v", expr, filter, err)
			}
			return
		}
		checkBack(t, filter)
		filter.Match(&flow)
		if m := filter.request(opGet, filter.pushed()); len(m.Data) < nfgenmsgLen {
			t.Errorf("%q: a request of %d bytes", expr, len(m.Data))
		}
	})
}
