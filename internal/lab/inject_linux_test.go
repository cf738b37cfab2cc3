package lab_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestInject has a datagram arrive that its host's routes would never send: from
// an address of nobody.
func TestInject(t *testing.T) {
	client, server := lab.Two(t)
	to := netip.AddrPortFrom(server.Addr4(), 53)
	l, err := server.ListenPacket("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	datagram := []byte{ // 192.0.2.77:7 > 192.0.2.2:53, without UDP checksum
		0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0xf6, 0x7d, 192, 0, 2, 77, 192, 0, 2, 2,
		0, 7, 0, 53, 0, 12, 0, 0, 'f', 'a', 'k', 'e',
	}
	if err := client.Inject(server, datagram); err != nil {
		t.Fatal(err)
	}
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := l.ReadFrom(b)
	if err != nil || string(b[:n]) != "fake" || from.String() != "192.0.2.77:7" {
		t.Errorf("got %q from %v, %v", b[:n], from, err)
	}
	for _, bad := range []error{client.Inject(client, datagram), client.Inject(server, nil)} {
		if !errors.Is(bad, fs.ErrInvalid) {
			t.Errorf("got %v", bad)
		}
	}
}

// TestSequences compares the numbers that both ends of a connection have.
func TestSequences(t *testing.T) {
	client, server := lab.Two(t)
	l, port := listen(t, server)
	c, err := client.Dial(within(t), "tcp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr4(), port), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, _ := sequences(t, c)
	if _, err := io.WriteString(c, "four"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	send, recv := sequences(t, c)
	theirSend, theirRecv := sequences(t, s)
	if send != before+4 || send != theirRecv || recv != theirSend {
		t.Errorf("client %d then %d and %d, server %d and %d", before, send, recv, theirSend, theirRecv)
	}
}

func sequences(t *testing.T, c net.Conn) (send, recv uint32) {
	t.Helper()
	send, recv, err := lab.Sequences(c)
	if err != nil {
		t.Fatal(err)
	}
	return send, recv
}
