package packet_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestValidOnKernel sends all 256 sets of flags, and compares what the kernel's
// conntrack says of each with Valid: it tells in group 0 why a segment is
// INVALID, and here many are, but only some for their flags.
func TestValidOnKernel(t *testing.T) {
	t.Parallel()
	client, server := lab.Two(t)
	for name, value := range map[string]string{
		"net.netfilter.nf_conntrack_log_invalid": "6", "net.netfilter.nf_log.2": "nfnetlink_log",
	} {
		if err := server.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "t", Chains: []nft.Chain{{
		Name: "in", Hook: nft.Input, Rules: []nft.Rule{{CTState: nft.New, Verdict: nft.Drop}}, // has connections tracked
	}}}); err != nil {
		t.Fatal(err)
	}
	reasons, err := nflog.Listen(&nflog.Config{NetNS: server.NetNS(), Groups: []uint16{0}})
	if err != nil {
		t.Fatal(err)
	}
	defer reasons.Close()
	sendAllFlags(t, client, server)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	invalid, last := map[packet.TCPFlags]bool{}, false
	for p, err := range reasons.Packets(ctx) {
		if err != nil {
			t.Errorf("after %d sets: %v", len(invalid), err)
			break
		}
		h, err := packet.Decode(p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(p.Prefix, "invalid tcp flag combination") {
			invalid[h.Flags] = true
		}
		if last = last || h.SrcPort == lastPort; last && len(invalid) >= 256-9*8 { // 9, and PSH, ECE, CWR in any way
			break
		}
	}
	for i := range 256 {
		if f := packet.TCPFlags(i); invalid[f] == f.Valid() {
			t.Errorf("%v: the kernel says invalid: %t", f, invalid[f])
		}
	}
}

// lastPort is that of a segment without flags after all others.
const lastPort = 30000

// sendAllFlags sends a segment of each set of flags, each of a connection of its
// own.
func sendAllFlags(t *testing.T, client, server *lab.Host) {
	t.Helper()
	err := client.Do(func() error {
		c, err := net.DialIP("ip4:tcp", nil, &net.IPAddr{IP: server.Addr4().AsSlice()})
		if err != nil {
			return err
		}
		for i := range 257 {
			port, flags := uint16(20000+i), byte(i)
			if i == 256 {
				port, flags = lastPort, 0
			}
			if _, err := c.Write(bare(client, server, port, flags)); err != nil {
				return errors.Join(err, c.Close())
			}
		}
		return c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// bare is a segment without data to port 2, with a checksum.
func bare(client, server *lab.Host, port uint16, flags byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, port)
	b = append(b, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, flags, 4, 0, 0, 0, 0, 0)
	pseudo := append(client.Addr4().AsSlice(), server.Addr4().AsSlice()...)
	pseudo = append(append(pseudo, 0, packet.ProtoTCP, 0, byte(len(b))), b...)
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(pseudo[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum+sum>>16))
	return b
}
