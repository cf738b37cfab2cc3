package packet

import (
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
)

// TestConfidence holds the conversion that Confidence promises.
func TestConfidence(t *testing.T) {
	for c := Unknown; c <= Certain+1; c++ {
		if got, want := c.String(), detect.Confidence(c).String(); got != want {
			t.Errorf("%d: %q, detect calls it %q", c, got, want)
		}
	}
}

func TestFlagAnomaly(t *testing.T) {
	for _, tt := range []struct {
		flags TCPFlags
		want  Anomaly
	}{
		{0, NoFlags}, {ECE | CWR, NoFlags},
		{SYN | FIN, SYNFIN}, {SYN | FIN | RST | PSH | ACK | URG, SYNFIN}, {SYN | FIN | ACK, SYNFIN},
		{SYN | RST, SYNRST}, {SYN | RST | ACK, SYNRST},
		{RST | FIN, RSTFIN}, {RST | FIN | ACK | PSH, RSTFIN},
		{PSH | RST, PSHRST}, {PSH | RST | ACK, PSHRST}, {PSH | RST | ACK | ECE, PSHRST},
		{FIN | PSH | URG, XMAS}, {FIN | PSH | URG | CWR, XMAS},
		{FIN, FINNoACK}, {FIN | PSH, FINNoACK}, {FIN | URG, FINNoACK},
		{PSH, InvalidFlags}, {URG, InvalidFlags}, {RST | URG, InvalidFlags}, {PSH | RST | URG, InvalidFlags},
		{SYN | ACK | URG, InvalidFlags},
		// What a TCP does send.
		{SYN, 0}, {SYN | ECE | CWR, 0}, {SYN | ACK, 0}, {SYN | ACK | ECE, 0}, {SYN | PSH, 0}, {ACK, 0}, {PSH | ACK, 0},
		{ACK | ECE, 0}, {ACK | CWR | PSH, 0}, {FIN | ACK, 0}, {FIN | PSH | ACK, 0}, {FIN | PSH | URG | ACK, 0},
		{PSH | ACK | URG, 0}, {RST, 0}, {RST | ACK, 0}, {SYN | URG, 0},
	} {
		if got := tt.flags.Anomaly(); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.flags, got, tt.want)
		}
	}
}

// TestAllFlags says for all sets of flags which conntrack takes, in the words of
// RFC 9293, and that each it does not take is an anomaly.
func TestAllFlags(t *testing.T) {
	for i := range 256 {
		f := TCPFlags(i)
		begins := f.Has(SYN) && !f.Has(FIN) && !f.Has(RST) && !f.Has(ACK|URG)
		resets := f.Has(RST) && !f.Has(SYN) && !f.Has(FIN) && !f.Has(URG)
		goesOn := f.Has(ACK) && !f.Has(SYN) && !f.Has(RST)
		if want := begins || resets || goesOn; f.Valid() != want {
			t.Errorf("%v: valid %t", f, f.Valid())
		}
		a := f.Anomaly()
		if (a == 0 || a == PSHRST) != f.Valid() {
			t.Errorf("%v: valid %t, anomaly %v", f, f.Valid(), a)
		}
		if said := strings.Contains(a.Meaning(), "conntrack: INVALID"); said == f.Valid() {
			t.Errorf("%v: %q", f, a.Meaning())
		}
	}
}

func TestAnomalyNames(t *testing.T) {
	for a, want := range map[Anomaly]string{0: "none", PSHRST: "PSH|RST", InvalidFlags: "invalid flags", 99: "99"} {
		if a.String() != want || (a.Meaning() == "") != (a == 0 || a == 99) {
			t.Errorf("%d: %q, %q", a, a.String(), a.Meaning())
		}
	}
	seen := map[string]bool{}
	for a := NoFlags; a <= InvalidFlags; a++ {
		if seen[a.String()] {
			t.Errorf("two are named %q", a)
		}
		seen[a.String()] = true
	}
}

// syn is a SYN with options, which fill 32-bit words, and data.
func syn(options, data string) []byte {
	o := raw(options)
	b := with(tcpSYN, 12, byte(5+len(o)/4)<<4)
	return v4(ProtoTCP, b, o, raw(data))
}

func TestAnomaly(t *testing.T) {
	const cookie = "22 0a 1122334455667788 0101"
	later := with(v4(ProtoTCP, tcpSYN), 6, 0, 1)
	reset := with(tcpData, 13, uint8(PSH|RST|ACK))
	for _, tt := range []struct {
		name string
		b    []byte
		want Anomaly
		sure Confidence
	}{
		{"SYN", syn("", ""), 0, Unknown},
		{"SYN with ECN", v4(ProtoTCP, with(tcpSYN, 13, uint8(SYN|ECE|CWR))), 0, Unknown},
		{"SYN with data", syn("", "686921"), SYNData, Certain},
		{"SYN with options and data", syn("020405b4", "686921"), SYNData, Certain},
		{"fast open", syn(cookie, "686921"), 0, Unknown},
		{"fast open behind other options", syn("020405b4 0101"+cookie[0:6]+"1122334455667788", "686921"), 0, Unknown},
		{"fast open as it was at first", syn("fe 08 f989 11223344", "686921"), 0, Unknown},
		{"another experiment", syn("fe 08 f988 11223344", "686921"), SYNData, Certain},
		{"fast open after the end of options", syn("00 22 02 00", "686921"), SYNData, Certain},
		{"an option of length 0", syn("05 00 22 02", "686921"), SYNData, Certain},
		{"an option longer than the rest", syn("05 09 22 02", "686921"), SYNData, Certain},
		{"cut before the options", syn(cookie, "686921")[:40], SYNData, Possible},
		{"cut within the options", syn("020405b4 0101"+cookie[0:6]+"1122334455667788", "686921")[:47], SYNData, Possible},
		{"cut after fast open", syn(cookie, "686921")[:50], 0, Unknown},
		{"SYN/ACK with data", v4(ProtoTCP, with(tcpData, 13, uint8(SYN|ACK))), 0, Unknown},
		{"data", v4(ProtoTCP, tcpData), 0, Unknown},
		{"keep-alive", v4(ProtoTCP, with(tcpData, 13, uint8(ACK))[:21]), 0, Unknown},
		{"PSH|RST", v4(ProtoTCP, reset), PSHRST, Certain},
		{"PSH|RST over IPv6", v6(extDestination, raw("06 00 0104 00000000"), reset), PSHRST, Certain},
		{"SYN with data over IPv6", v6(extDestination, raw("06 00 0104 00000000"), tcpSYN, raw("686921")), SYNData, Certain},
		{"cut before the flags", v4(ProtoTCP, reset)[:33], 0, Unknown},
		{"fragment", later, 0, Unknown},
		{"UDP", v4(ProtoUDP, udpData), 0, Unknown},
	} {
		p, err := Decode(tt.b)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		var a Anomaly
		var sure Confidence
		if n := testing.AllocsPerRun(10, func() { a, sure = p.Anomaly(tt.b) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
		if a != tt.want || sure != tt.sure {
			t.Errorf("%s: %v, %v, want %v, %v", tt.name, a, sure, tt.want, tt.sure)
		}
	}
}

// TestAnomalyQuoted gives Anomaly what a quoted SYN was decoded from, the wrong
// bytes, and none.
func TestAnomalyQuoted(t *testing.T) {
	b := icmpv4(3, 13, "00000000", syn("22 02 0101", "686921"))
	p, _ := Decode(b)
	if a, sure := p.Quoted.Anomaly(p.Payload(b)); a != 0 || sure != Unknown {
		t.Errorf("%v, %v", a, sure)
	}
	for _, wrong := range [][]byte{b, nil, v4(ProtoTCP, with(tcpData, 7, 0))} {
		if a, sure := p.Quoted.Anomaly(wrong); a != SYNData || sure != Possible {
			t.Errorf("%v, %v", a, sure)
		}
	}
}
