package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// asProgram has the test's program be the command itself.
const asProgram = "BADPACKETS_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	lab.Main(m)
}

// child is the command, at work.
type child struct {
	*exec.Cmd
	rows chan row
}

// start starts the command inside a host, and returns once it listens.
func start(t *testing.T, h *lab.Host, args ...string) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := &child{exec.CommandContext(ctx, "/proc/self/exe", args...), make(chan row, 100)}
	c.Env = append(os.Environ(), asProgram+"=1")
	stdout, err1 := c.StdoutPipe()
	stderr, err2 := c.StderrPipe()
	if err := errors.Join(err1, err2, h.Do(c.Start)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.Contains(lines.Text(), "listening") {
		t.Fatalf("the command says %q", lines.Text())
	}
	go func() {
		defer close(c.rows)
		for d := json.NewDecoder(stdout); ; {
			var r row
			if d.Decode(&r) != nil {
				return
			}
			c.rows <- r
		}
	}()
	return c
}

// next waits for a row of a kind and confidence.
func (c *child) next(t *testing.T, kind string, sure packet.Confidence) row {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case r, ok := <-c.rows:
			if ok && r.Kind == kind && r.Confidence == sure.String() {
				return r
			} else if !ok {
				t.Fatalf("the command ended without telling of %s, %v", kind, sure)
			}
		case <-late:
			t.Fatalf("the command does not tell of %s, %v", kind, sure)
		}
	}
}

// TestBadPackets has a client send what the command looks for, to a server
// that drops every RST.
func TestBadPackets(t *testing.T) {
	client, server := lab.Two(t)
	logAll := nft.Rule{Proto: nft.TCP, Log: &nft.Log{Group: 50}}
	dropReset := nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Verdict: nft.Drop}
	if err := server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "in", Hook: nft.Input, Rules: []nft.Rule{logAll, dropReset}},
		{Name: "out", Hook: nft.Output, Rules: []nft.Rule{logAll}},
	}}); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, server, "-json")
	l, err := server.Listen("tcp4", netip.AddrPortFrom(server.Addr4(), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	hangs, _ := connect(t, client, l)
	inject(t, client, hangs, packet.PSH|packet.RST|packet.ACK)
	cmd.next(t, "reset", packet.Possible)
	ends, endsHere := connect(t, client, l)
	inject(t, client, ends, packet.PSH|packet.RST|packet.ACK)
	if r := cmd.next(t, "reset", packet.Possible); r.From != ends.LocalAddr().String() {
		t.Errorf("%+v", r)
	}
	time.Sleep(200 * time.Millisecond) // what comes sooner can have been under way
	if err := errors.Join(endsHere.SetLinger(0), endsHere.Close()); err != nil {
		t.Fatal(err)
	}
	if r := cmd.next(t, "reset", packet.Certain); r.From != ends.LocalAddr().String() || !strings.Contains(r.Text, "acknowledges 1, not 19") {
		t.Errorf("%+v", r)
	}

	attacker, victim := connect(t, client, l)
	heartbleed(t, attacker, victim)
	if r := cmd.next(t, "heartbeat overread", packet.Certain); r.From != attacker.LocalAddr().String() {
		t.Errorf("%+v", r)
	}
	if r := cmd.next(t, "heartbeat leak", packet.Certain); r.To != attacker.LocalAddr().String() {
		t.Errorf("%+v", r)
	}
	for range 2 {
		inject(t, client, attacker, packet.SYN|packet.FIN)
	}
	if r := cmd.next(t, "SYN|FIN", packet.Certain); r.Count != 1 {
		t.Errorf("%+v", r)
	}

	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if r := cmd.next(t, "hung", packet.Likely); r.From != client.Addr4().String() || r.Count != 1 {
		t.Errorf("%+v", r)
	}
	for range cmd.rows { // until it has ended
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestHelp asks for help, and for what there is not.
func TestHelp(t *testing.T) {
	for arg, want := range map[string]string{"-h": "-group N", "-group=70000": "want 0 to 65535"} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", arg)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (arg == "-h") {
			t.Errorf("%s: %v\n%s", arg, err, out)
		}
	}
}

// connect makes a connection.
func connect(t *testing.T, client *lab.Host, l net.Listener) (c, s *net.TCPConn) {
	t.Helper()
	conn, err := client.Dial(t.Context(), "tcp", netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	return conn.(*net.TCPConn), peer.(*net.TCPConn)
}

// inject sends a request of 18 bytes on a connection, past its TCP, without a
// checksum: a rule drops it, or nobody reads it.
func inject(t *testing.T, client *lab.Host, c *net.TCPConn, flags packet.TCPFlags) {
	t.Helper()
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	b := binary.BigEndian.AppendUint16(nil, uint16(from.Port))
	b = binary.BigEndian.AppendUint16(b, uint16(to.Port))
	b = binary.BigEndian.AppendUint32(b, next(t, c))
	b = append(b, 0, 0, 0, 0, 5<<4, byte(flags), 4, 0, 0, 0, 0, 0)
	b = append(b, "GET / HTTP/1.0\r\n\r\n"...)
	err := client.Do(func() error {
		raw, err := net.DialIP("ip4:tcp", &net.IPAddr{IP: from.IP}, &net.IPAddr{IP: to.IP})
		if err != nil {
			return err
		}
		_, err = raw.Write(b)
		return errors.Join(err, raw.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// next is the sequence number of the next byte that a connection sends.
func next(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var seq int
	var errs [4]error
	err = raw.Control(func(fd uintptr) {
		errs[0] = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		errs[1] = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 2) // TCP_SEND_QUEUE
		seq, errs[2] = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		errs[3] = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, -1) // TCP_REPAIR_OFF_NO_WP
	})
	if err := errors.Join(append(errs[:], err)...); err != nil {
		t.Fatal(err)
	}
	return uint32(seq)
}

// heartbleed sends the attack, and an answer of more than it had.
func heartbleed(t *testing.T, attacker, victim *net.TCPConn) {
	t.Helper()
	attack := []byte{24, 3, 2, 0, 3, 1, 0x40, 0}
	_, err1 := attacker.Write(attack)
	_, err2 := io.ReadFull(victim, make([]byte, len(attack)))
	_, err3 := victim.Write(append([]byte{24, 3, 2, 0, 219, 2, 0, 200}, make([]byte, 216)...))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
}
