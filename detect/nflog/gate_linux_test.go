package nflog

import (
	"bytes"
	"errors"
	"io/fs"
	"iter"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// pull ranges over r, giving up after a time.
func pull(t testing.TB, r *Reader) func() (Packet, error) {
	t.Helper()
	next, stop := iter.Pull2(r.Packets(t.Context()))
	t.Cleanup(stop)
	return func() (Packet, error) {
		t.Helper()
		timer := time.AfterFunc(5*time.Second, func() { r.Close() })
		defer timer.Stop()
		p, err, ok := next()
		if !ok {
			t.Fatal("the range has ended")
		}
		return p, err
	}
}

func TestEveryAttribute(t *testing.T) { readers(t, testEveryAttribute) }

func testEveryAttribute(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	want := Packet{
		Time: time.Unix(0x6b49d200, 250_000), Hook: Forward, HwProtocol: 0x86dd, Mark: 0xcafe,
		In: 2, PhysIn: 3, Out: 4, PhysOut: 5, Prefix: "why: ", UID: 1000, GID: 1001, HasUID: true,
		HwAddr: []byte{2, 0, 0, 0, 0, 1}, HwType: 1, LinkHeader: []byte{13: 2}, GlobalSeq: 99,
		VLAN: VLAN{0x8100, 0x6007}, HasVLAN: true,
		Payload: []byte{0x60, 1, 2, 3, 4}, CTInfo: EstablishedReply, HasCTInfo: true,
		Conntrack: []byte{8, 0, 3, 0, 0, 0, 0, 14},
	}
	next := pull(t, r)
	// unspec, inet, ipv4, arp, netdev, bridge, ipv6, and one to come.
	for i, family := range []uint8{0, 1, 2, 3, 5, 7, 10, 77} {
		m := message(family, full)
		setSeq(m.Data, uint32(i))
		want.Seq = uint32(i)
		if !goNflog {
			want.Family = Family(family)
		}
		w.datagrams <- []netlink.Message{m}
		got, err := next()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("family %d: got %+v, %v\nwant %+v", family, got, err, want)
		}
	}
}

func setSeq(data []byte, seq uint32) {
	for a := nfnl.Walk(data[nfgenLen:]); a.Next(); {
		if a.Type == 12 {
			a.Value[3] = byte(seq)
		}
	}
}

func TestNoAttributes(t *testing.T) { readers(t, testNoAttributes) }

func testNoAttributes(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	w.datagrams <- []netlink.Message{message(unix.AF_INET, func(*nfnl.Builder) {})}
	var want Packet
	if !goNflog {
		want.Family = IPv4
	}
	if got, err := pull(t, r)(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// A clone does not change with the buffer that the packet came in.
func TestClone(t *testing.T) {
	b := payload(unix.AF_INET, full)
	p, _, ok := decode(b, newPrefixes())
	kept := p.Clone()
	if !ok || !reflect.DeepEqual(p, kept) {
		t.Fatalf("cloned %+v\nto %+v", p, kept)
	}
	want, _, _ := decode(bytes.Clone(b), newPrefixes())
	clear(b)
	if !reflect.DeepEqual(kept, want) {
		t.Errorf("the clone became %+v", kept)
	}
	_ = append(kept.Payload, 0xff) // must not reach the next one
	if !reflect.DeepEqual(kept, want) {
		t.Errorf("the clone's bytes are one: %+v", kept)
	}
	if none := (Packet{}).Clone(); !reflect.DeepEqual(none, Packet{}) {
		t.Errorf("the zero Packet was cloned to %+v", none)
	}
}

// A batch comes as one datagram, ended by an NLMSG_DONE without NLM_F_MULTI
// (__nfulnl_send).
func TestBatch(t *testing.T) { readers(t, testBatch) }

func testBatch(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog, Threshold: 3})
	if err != nil {
		t.Fatal(err)
	}
	done := netlink.Message{Header: netlink.Header{Type: netlink.Done}, Data: make([]byte, 4)}
	w.datagrams <- []netlink.Message{numbered(0), numbered(1), numbered(2), done}
	w.datagrams <- []netlink.Message{numbered(3)}
	next := pull(t, r)
	for seq := range uint32(4) {
		if p, err := next(); err != nil || p.Seq != seq {
			t.Fatalf("got packet %d, %v, want %d", p.Seq, err, seq)
		}
	}
}

func TestOverrunAndGap(t *testing.T) { readers(t, testOverrunAndGap) }

func testOverrunAndGap(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	next := pull(t, r)
	w.overrun()
	wantLost(t, next, Lost{Overrun: true})
	w.datagrams <- []netlink.Message{numbered(40)}
	wantLost(t, next, Lost{Count: 40})
	if p, err := next(); err != nil || p.Seq != 40 {
		t.Errorf("got packet %d, %v, want 40", p.Seq, err)
	}
}

func wantLost(t *testing.T, next func() (Packet, error), want Lost) {
	t.Helper()
	_, err := next()
	var lost *Lost
	if !errors.As(err, &lost) || *lost != want {
		t.Errorf("got %v, want %v", err, &want)
	}
}

// A packet that cannot be read is missing in the sequence, and told so.
func TestUnreadableIsLost(t *testing.T) { readers(t, testUnreadableIsLost) }

func testUnreadableIsLost(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	short := func(typ uint16) netlink.Message {
		return message(unix.AF_INET, func(b *nfnl.Builder) { b.Bytes(typ, []byte{1}); b.U32(12, 0) })
	}
	w.datagrams <- []netlink.Message{
		short(1), short(3), short(2), // header, timestamp, mark
		{Header: netlink.Header{Type: typePacket}, Data: []byte{2}},
		{Header: netlink.Header{Type: typePacket + 1}, Data: make([]byte, 8)},
		{Header: netlink.Header{Type: typePacket}, Data: append(numbered(0).Data, 3, 0, 1, 0)},
	}
	w.datagrams <- []netlink.Message{numbered(5)}
	next := pull(t, r)
	wantLost(t, next, Lost{Count: 5})
	if p, err := next(); err != nil || p.Seq != 5 {
		t.Errorf("got packet %d, %v, want 5", p.Seq, err)
	}
}

// go-nflog calls its error function for ever when that does not say stop.
func TestSocketFails(t *testing.T) { readers(t, testSocketFails) }

func testSocketFails(t *testing.T, goNflog bool) {
	w := newWire()
	r, err := listenOn(t, w, Config{GoNflog: goNflog})
	if err != nil {
		t.Fatal(err)
	}
	w.failures <- &netlink.OpError{Op: "receive", Err: os.NewSyscallError("recvmsg", unix.EBADF)}
	next := os.NewSyscallError("recvmsg", unix.EBADF)
	if goNflog {
		next = errors.New("must not be asked for")
	}
	w.failures <- next
	wantLast(t, t.Context(), r, unix.EBADF)
	wantLast(t, t.Context(), r, unix.EBADF)
	if err := r.Close(); err != nil {
		t.Errorf("Close after a failure: %v", err)
	}
	wantLast(t, t.Context(), r, net.ErrClosed)
}

func TestRefusals(t *testing.T) { readers(t, testRefusals) }

func testRefusals(t *testing.T, goNflog bool) {
	first, bind, flags := 0, 0, 0
	if goNflog { // PF_UNBIND, PF_BIND, BIND, MODE, the others
		bind, flags = 2, 4
	}
	tests := []struct {
		name  string
		at    int
		errno syscall.Errno
		is    error
		text  string
	}{
		{"capability", -1, unix.EPERM, fs.ErrPermission, "needs CAP_NET_ADMIN"},
		{"module", first, unix.EINVAL, errors.ErrUnsupported, "nfnetlink_log"},
		{"taken", bind, unix.EPERM, fs.ErrPermission, "another process listens on this group"},
		{"taken at the same time", bind, unix.EEXIST, fs.ErrPermission, "another process listens on this group"},
		{"no memory", bind, unix.ENOMEM, unix.ENOMEM, "memory"},
		{"conntrack", flags, unix.EOPNOTSUPP, errors.ErrUnsupported, "CONFIG_NETFILTER_NETLINK_GLUE_CT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire()
			w.refuse = func(i int) syscall.Errno {
				if i == tt.at || tt.at < 0 {
					return tt.errno
				}
				return 0
			}
			_, err := listenOn(t, w, Config{GoNflog: goNflog, Groups: []uint16{5}, Conntrack: WithConntrack})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), "group 5: ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v and %q", err, tt.is, tt.text)
			}
			select {
			case <-w.closed:
			default:
				t.Error("the socket was left open")
			}
		})
	}
}

// Packets that come before the answer to a request of Listen are not lost, nor
// taken for it.
func TestPacketsBeforeTheAnswer(t *testing.T) { readers(t, testPacketsBeforeTheAnswer) }

func testPacketsBeforeTheAnswer(t *testing.T, goNflog bool) {
	w := newWire()
	answers := 0 // before those to the binding of two groups, or
	if goNflog {
		answers = 3 // of one
	}
	w.before = func(i int) []netlink.Message {
		switch i - answers {
		case 0:
			return []netlink.Message{message(unix.AF_INET6, func(b *nfnl.Builder) { b.String(10, "early") })}
		case 1:
			return []netlink.Message{numbered(0), numbered(1), {Header: netlink.Header{Type: netlink.Done}}}
		}
		return nil
	}
	r, err := listenOn(t, w, Config{GoNflog: goNflog, Groups: []uint16{0, 6}[:2-min(answers, 1)]})
	if err != nil {
		t.Fatal(err)
	}
	w.datagrams <- []netlink.Message{numbered(2)}
	next := pull(t, r)
	for i, want := range []Packet{{Prefix: "early"}, {Seq: 0}, {Seq: 1}, {Seq: 2}} {
		if p, err := next(); err != nil || p.Seq != want.Seq || p.Prefix != want.Prefix {
			t.Errorf("packet %d: got %+v, %v, want %+v", i, p, err, want)
		}
	}
}

// The requests say what Config says.
func TestRequests(t *testing.T) { readers(t, testRequests) }

func testRequests(t *testing.T, goNflog bool) {
	w := newWire()
	_, err := listenOn(t, w, Config{
		GoNflog: goNflog, Groups: []uint16{0x0102},
		Snaplen: 77, Threshold: 9, FlushInterval: 25 * time.Millisecond, Conntrack: WithConntrack,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[uint16][]byte)
	for i, m := range w.sent() {
		if i >= 2 && (m.Data[2] != 1 || m.Data[3] != 2) {
			t.Errorf("request %d is not about group 0x0102: %x", i, m.Data[:4])
		}
		for a := nfnl.Walk(m.Data[nfgenLen:]); a.Next(); {
			got[a.Type] = a.Value
		}
	}
	for typ, want := range map[uint16][]byte{
		1: {1},                 // NFULA_CFG_CMD: the last is NFULNL_CFG_CMD_BIND
		2: {0, 0, 0, 77, 2, 0}, // NFULA_CFG_MODE: NFULNL_COPY_PACKET
		4: {0, 0, 0, 3},        // NFULA_CFG_TIMEOUT: 30 ms
		5: {0, 0, 0, 9},        // NFULA_CFG_QTHRESH
		6: {0, 1 | 2 | 4},      // NFULA_CFG_FLAGS: NFULNL_CFG_F_SEQ | _SEQ_GLOBAL | _CONNTRACK
	} {
		if !bytes.Equal(got[typ], want) {
			t.Errorf("attribute %d is %v, want %v", typ, got[typ], want)
		}
	}
}

func TestNoNamespace(t *testing.T) {
	readers(t, func(t *testing.T, goNflog bool) {
		_, err := Listen(&Config{NetNS: "/proc/self/ns/absent", Groups: []uint16{5}, GoNflog: goNflog})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want fs.ErrNotExist", err)
		}
	})
}
