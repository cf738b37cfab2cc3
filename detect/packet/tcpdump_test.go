package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// TestTcpdump compares with tcpdump, where it is installed: each captured
// packet, and each quoted packet given to it as if it had been captured.
func TestTcpdump(t *testing.T) {
	tool, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("reference tool: ", err)
	}
	for _, name := range fixture.Names(t, captures) {
		t.Run(name, func(t *testing.T) {
			b := capture(t, name)
			p, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, tool, b, p.Header)
			if p.HasQuoted {
				compare(t, tool, p.Payload(b), p.Quoted)
			}
		})
	}
}

func compare(t *testing.T, tool string, b []byte, h Header) {
	t.Helper()
	if h.Src.Is4() && h.Length == 0 {
		return // tcpdump 4.99 stops at a total length of 0
	}
	cmd := exec.Command(tool, "-nn", "-v", "-S", "-t", "-r", "-")
	cmd.Stdin = bytes.NewReader(pcap(b, max(h.Length, len(b))))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	for _, want := range said(h) {
		if !strings.Contains(text, want) {
			t.Errorf("%s: tcpdump does not say %q:\n%s", h, want, text)
		}
	}
	dotted := fmt.Sprintf("%s.%d > %s.%d: ", h.Src, h.SrcPort, h.Dst, h.DstPort)
	bare := fmt.Sprintf("%d > %d: ", h.SrcPort, h.DstPort) // behind IPv6 extension headers
	if h.Have.Has(HavePorts) && h.Proto != ProtoUDPLite && !strings.Contains(text, dotted) && !strings.Contains(text, bare) {
		t.Errorf("%s: tcpdump has other ports:\n%s", h, text)
	}
}

// said is what tcpdump must say about a packet with header h.
func said(h Header) []string {
	s := []string{h.Src.String(), " > " + h.Dst.String()}
	if h.Src.Is4() {
		s = append(s, fmt.Sprintf("ttl %d,", h.TTL), fmt.Sprintf("(%d), length %d", h.Proto, h.Length))
	} else {
		s = append(s, fmt.Sprintf("hlim %d,", h.TTL), fmt.Sprintf("payload length: %d)", max(h.Length-ipv6HeaderLen, 0)))
	}
	if h.Have.Has(HaveFlags) {
		s = append(s, fmt.Sprintf("seq %d", h.Seq), fmt.Sprintf("win %d,", h.Window), tcpdumpFlags(h.Flags))
		if h.DataLen >= 0 {
			s = append(s, fmt.Sprintf(", length %d", h.DataLen))
		}
		if h.Flags.Has(ACK) {
			s = append(s, fmt.Sprintf("ack %d,", h.Ack))
		}
	}
	if h.Have.Has(HaveICMPID) {
		s = append(s, fmt.Sprintf("echo request, id %d,", h.ICMPID))
	}
	return s
}

func tcpdumpFlags(f TCPFlags) string {
	var s strings.Builder
	for i, letter := range "FSRP.UEW" {
		if f&(1<<i) != 0 {
			s.WriteRune(letter)
		}
	}
	return "Flags [" + s.String() + "]"
}

// pcap is a capture file with the one packet b of the given length:
// pcap-savefile(5), LINKTYPE_RAW.
func pcap(b []byte, length int) []byte {
	le := binary.LittleEndian
	f := le.AppendUint32(nil, 0xa1b2c3d4)
	f = append(f, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0) // version 2.4, UTC
	f = le.AppendUint32(f, 1<<18)                     // snap length
	f = le.AppendUint32(f, 101)                       // LINKTYPE_RAW
	f = append(f, 0, 0, 0, 0, 0, 0, 0, 0)             // the epoch
	f = le.AppendUint32(f, uint32(len(b)))
	f = le.AppendUint32(f, uint32(length))
	return append(f, b...)
}
