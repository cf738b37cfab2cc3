package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/lab"
)

const (
	portMPTCP = 8300 + iota
	portTLS
	portBeside // plain TCP
)

// multipath makes a connection of MPTCP, which is what net.Listen gives.
func (s *scene) multipath() {
	at := netip.AddrPortFrom(loopback4, portMPTCP).String()
	s.check(s.h.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(true)
		l, err := lc.Listen(context.Background(), "tcp4", at)
		if err != nil {
			return err
		}
		s.keep(l)
		var d net.Dialer
		d.SetMultipathTCP(true)
		for range 2 {
			c, err := d.DialContext(s.t.Context(), "tcp4", at)
			if err != nil {
				return err
			}
			s.keep(c)
		}
		c, err := l.Accept()
		if err == nil {
			s.keep(c)
		}
		return err
	}))
}

// TestMultipath: the subflows of MPTCP, among plain TCP, with Info, and the
// sockets they belong to. Both have the inode, each its cookie.
func TestMultipath(t *testing.T) {
	if !creatable(t, "mptcp", unix.SOCK_STREAM, unix.IPPROTO_MPTCP) {
		return
	}
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.pair(portBeside, loopback4, "tcp4")
	s.multipath()
	c := dialHost(t, s.h)
	tcp := snapshot(t, c, Query{Info: true})
	tokens := make(map[uint32]int)
	for _, s := range tcp {
		if s.Has(FieldInfo) != (s.State != TimeWait) {
			t.Errorf("no tcp_info: %+v", s)
		}
		d := s.Details()
		if plain := s.Local.Port() == portBeside || s.Remote.Port() == portBeside; plain == (d.ULP == "mptcp") {
			t.Errorf("%+v: ULP %q", s, d.ULP)
		}
		if d.ULP == "mptcp" && s.State == Established {
			tokens[d.MPTCP.LocalToken]++
		}
	}
	if len(tokens) != 4 || tokens[0] != 0 {
		t.Errorf("tokens of two connections: %v, want four, one for each end", tokens)
	}
	if mptcp := supported(t, c, Query{Protocol: MPTCP, Info: true}); mptcp != nil {
		checkMultipath(t, mptcp, one(t, tcp, portMPTCP, Listen, true))
		s.againstSS(c)
	}
}

func checkMultipath(t *testing.T, sockets []Socket, subflow Socket) {
	t.Helper()
	l := one(t, sockets, portMPTCP, Listen, true)
	if l.Protocol != MPTCP || l.AcceptQueue != 1 || l.Backlog == 0 || l.Has(FieldInfo) {
		t.Errorf("listener: %+v", l)
	}
	if l.Inode != subflow.Inode || l.Cookie == subflow.Cookie {
		t.Errorf("its subflow: %+v", subflow)
	}
	owned, ends := 0, 0
	for _, s := range sockets {
		if s.State != Established {
			continue
		}
		ends++
		if s.HasOwner() {
			owned++
		}
	}
	if ends != 4 || owned != 3 {
		t.Errorf("%d ends, %d owned; want 4, 3 (one waits for accept): %+v", ends, owned, sockets)
	}
}

// againstSS compares with ss -M.
func (s *scene) againstSS(c *Conn) {
	_, lines, _ := settled(s.t, c, s.h, Query{}, "-tanOeiH")
	for _, r := range lines {
		var got string
		for _, row := range snapshot(s.t, c, Query{Info: true}) {
			if row.Cookie == r.Cookie {
				got = subflowAsSS(row.Details().MPTCP)
			}
		}
		if token, ok := r.values["token"]; ok && token != got { // a listener has none
			s.t.Errorf("token %s, ss %s", got, token)
		}
	}
	before, lines, elapsed := settled(s.t, c, s.h, Query{Protocol: MPTCP, Memory: true}, "-ManOemH")
	for _, r := range lines {
		row := before[r.Cookie]
		delete(before, r.Cookie)
		r.Protocol = MPTCP
		r.compare(s.t, row, elapsed)
	}
	if len(before) != 0 || len(lines) != 5 {
		s.t.Errorf("ss shows %d sockets, not %+v", len(lines), before)
	}
}

func subflowAsSS(i SubflowInfo) string {
	return fmt.Sprintf("%04x(id:%d)/%04x(id:%d)", i.RemoteToken, i.RemoteID, i.LocalToken, i.LocalID)
}

// TestTLS: a connection with TLS in the kernel, among plain TCP, with Info.
func TestTLS(t *testing.T) {
	s := &scene{t, lab.New(t).MustHost(t, "a")}
	s.pair(portBeside, loopback4, "tcp4")
	client, _ := s.pair(portTLS, loopback4, "tcp4")
	var refused error
	control(t, client, func(fd int) error {
		refused = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "tls")
		if refused != nil {
			return nil
		}
		const solTLS, tlsTX = 282, 1               // SOL_TLS, TLS_TX
		key := make([]byte, 40)                    // struct tls12_crypto_info_aes_gcm_128
		binary.NativeEndian.PutUint16(key, 0x0303) // TLS_1_2_VERSION
		binary.NativeEndian.PutUint16(key[2:], 51) // TLS_CIPHER_AES_GCM_128
		return unix.SetsockoptString(fd, solTLS, tlsTX, string(key))
	})
	want := Details{ULP: "tls", TLS: TLSInfo{Version: 0x0303, Cipher: 51, SendMode: 2, ReceiveMode: 1}}
	if refused != nil {
		t.Log("no TLS in the kernel:", refused)
		want = Details{}
	} else {
		t.Log("TLS in the kernel")
	}
	sockets := snapshot(t, dialHost(t, s.h), Query{Info: true})
	tls, plain := one(t, sockets, portTLS, Established, false), one(t, sockets, portBeside, Established, false)
	if tls.Details() != want || !tls.Has(FieldInfo) || plain.Details() != (Details{}) || !plain.Has(FieldInfo) {
		t.Errorf("TLS %+v, plain %+v; want %+v", tls.Details(), plain.Details(), want)
	}
}

// TestNonsense: nonsense is told before the kernel is asked.
func TestNonsense(t *testing.T) {
	c := dialHost(t, lab.New(t).MustHost(t, "a"))
	for text, q := range map[string]Query{
		"Protocol(7) is no protocol": {Protocol: 7},
		"Protocol(1) is no protocol": {Protocol: 1, States: States(Close)},
		"no socket is in such":       {States: 1 | 1<<30},
		"Family(1) is no address":    {Family: 1},
	} {
		var op *OpError
		_, err := c.Snapshot(t.Context(), q)
		if !errors.As(err, &op) || !strings.Contains(err.Error(), text) || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v, want %q", q, err, text)
		}
		if rows, err := collect(t.Context(), c, q); len(rows) != 0 || !errors.As(err, &op) {
			t.Errorf("All %+v: %v, %v", q, rows, err)
		}
	}
	// A complement names states that do not exist: it is no nonsense.
	if _, err := c.Snapshot(t.Context(), Query{States: ^States(Listen)}); err != nil {
		t.Error(err)
	}
}
