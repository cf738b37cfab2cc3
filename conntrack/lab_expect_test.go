package conntrack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const portFTP = 21

// ftp is a control connection that a host with FTP's helper tracks.
type ftp struct {
	t               *testing.T
	client, server  *lab.Host
	tracker         *Conn
	host            *lab.Host // the tracker's
	control, served *bufio.ReadWriter
	conns           [2]net.Conn
}

// helping is a table that assigns the helper at the hook, and counts what is
// related to connections that have it.
func helping(hook nft.Hook) nft.Table {
	return nft.Table{Family: nft.INet, Name: "help",
		Helpers: []nft.CTHelper{{Name: "ftp", Helper: "ftp", Proto: nft.TCP}},
		Chains: []nft.Chain{
			{Name: "assign", Hook: hook, Priority: nft.PriorityMangle, Rules: []nft.Rule{
				{Proto: nft.TCP, DstPort: portFTP, Helper: "ftp"},
				{Proto: nft.TCP, CTState: nft.Related, Counter: true},
			}},
			{Name: "related", Hook: nft.Prerouting, Rules: []nft.Rule{{Proto: nft.TCP, CTState: nft.Related, Counter: true}}},
		}}
}

// newFTP is a client that tracks its own connections.
func newFTP(t *testing.T) *ftp {
	t.Helper()
	client, server := lab.Two(t)
	f := &ftp{t: t, client: client, server: server, host: client, tracker: dialHost(t, client)}
	f.help(nft.Output)
	return f
}

// newTranslatedFTP is a client behind a router that tracks and masquerades.
func newTranslatedFTP(t *testing.T) *ftp {
	t.Helper()
	client, router, server := lab.Three(t)
	f := &ftp{t: t, client: client, server: server, host: router, tracker: dialHost(t, router)}
	f.help(nft.Prerouting, nft.Table{Family: nft.INet, Name: "nat", Chains: []nft.Chain{{
		Name: "snat", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT,
		Rules: []nft.Rule{{OutIface: "server", Verdict: nft.Masquerade}},
	}}})
	return f
}

// help skips the test where the kernel has no such helper.
func (f *ftp) help(hook nft.Hook, more ...nft.Table) {
	f.t.Helper()
	err := f.host.Rules(within(f.t), append(more, helping(hook))...)
	supported := !errors.Is(err, errors.ErrUnsupported)
	f.t.Logf("SUPPORT: ftp helper by rule: %s", yesNo(supported))
	if !supported {
		f.t.Skip(err)
	}
	must(f.t, err)
}

// connect opens the control connection. The helper looks at lines only after
// the end of another was seen in the same direction.
func (f *ftp) connect(addr netip.Addr) {
	f.t.Helper()
	l, err := f.server.Listen("tcp", netip.AddrPortFrom(addr, portFTP))
	must(f.t, err)
	f.t.Cleanup(func() { must(f.t, l.Close()) })
	c, err := f.client.Dial(within(f.t), "tcp", netip.AddrPort{}, netip.AddrPortFrom(addr, portFTP), nil)
	must(f.t, err)
	s, err := l.Accept()
	must(f.t, err)
	f.t.Cleanup(func() { _, _ = c.Close(), s.Close() }) // closed already, some of them
	f.conns = [2]net.Conn{c, s}
	f.control, f.served = buffered(c), buffered(s)
	f.say(f.served, f.control, "220 ready")
	f.say(f.control, f.served, "USER anonymous")
	f.say(f.served, f.control, "230 logged in")
}

func buffered(c net.Conn) *bufio.ReadWriter {
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed one
	return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
}

// say sends a line and returns what arrives of it.
func (f *ftp) say(from, to *bufio.ReadWriter, line string) string {
	f.t.Helper()
	_, err := from.WriteString(line + "\r\n")
	must(f.t, err, from.Flush())
	got, err := to.ReadString('\n')
	must(f.t, err)
	return strings.TrimSpace(got)
}

// commas writes an address and port as PORT and 227 do.
func commas(a netip.AddrPort) string {
	return strings.ReplaceAll(a.Addr().String(), ".", ",") + fmt.Sprintf(",%d,%d", a.Port()>>8, a.Port()&255)
}

// uncommas reads them.
func uncommas(t *testing.T, line string) netip.AddrPort {
	t.Helper()
	var a [4]byte
	var high, low uint16
	_, err := fmt.Sscanf(line[strings.IndexAny(line, "0123456789"):], "%d,%d,%d,%d,%d,%d", &a[0], &a[1], &a[2], &a[3], &high, &low)
	must(t, err)
	return netip.AddrPortFrom(netip.AddrFrom4(a), high<<8|low)
}

// listen opens a data port.
func (f *ftp) listen(h *lab.Host, addr netip.Addr) (net.Listener, netip.AddrPort) {
	f.t.Helper()
	l, err := h.Listen("tcp", netip.AddrPortFrom(addr, 0))
	must(f.t, err)
	f.t.Cleanup(func() { must(f.t, l.Close()) })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// expected is the one expectation there is.
func (f *ftp) expected() Expectation {
	f.t.Helper()
	list := collectExpectations(f.t, f.tracker.Expectations(within(f.t)))
	if len(list) != 1 {
		f.t.Fatalf("expectations %v", list)
	}
	return list[0]
}

func collectExpectations(t *testing.T, seq func(func(Expectation, error) bool)) (list []Expectation) {
	t.Helper()
	for e, err := range seq {
		must(t, err)
		list = append(list, e)
	}
	return list
}

// transfer connects to the announced port and returns the entry that the
// tracker made of it.
func (f *ftp) transfer(from *lab.Host, to netip.AddrPort, l net.Listener) Flow {
	f.t.Helper()
	c, err := from.Dial(within(f.t), "tcp", netip.AddrPort{}, to, nil)
	must(f.t, err)
	defer c.Close()
	a, err := l.Accept()
	must(f.t, err)
	defer a.Close()
	_, err = io.WriteString(c, "data")
	must(f.t, err)
	_, err = io.ReadFull(a, make([]byte, 4))
	must(f.t, err)
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	flow, err := f.tracker.Get(within(f.t), Tuple{Proto: ProtoTCP, Src: local.Addr(), SrcPort: local.Port(), Dst: to.Addr(), DstPort: to.Port()}, 0)
	must(f.t, err)
	return flow
}

// check compares an expectation, the data connection that met it, and the
// control connection.
func (f *ftp) check(e Expectation, data Flow, dst netip.AddrPort) {
	f.t.Helper()
	master := f.master()
	want := Expectation{
		Tuple:  Tuple{Proto: ProtoTCP, Src: data.Original.Src, Dst: dst.Addr(), DstPort: dst.Port()},
		Mask:   fullMask(dst.Addr()),
		Master: master.Original, Helper: "ftp", ID: e.ID, Timeout: e.Timeout,
		Fields: ExpectFieldTimeout | ExpectFieldID | ExpectFieldFlags | ExpectFieldClass,
	}
	if e != want || e.ID == 0 || e.Timeout < 5*time.Second || e.Timeout > 300*time.Second {
		f.t.Errorf("got  %+v\nwant %+v", e, want)
	}
	f.checkData(data, master)
}

func (f *ftp) checkData(data, master Flow) {
	f.t.Helper()
	if data.Status&Expected == 0 || !data.Has(FieldMaster) || data.Details().Master != master.Original {
		f.t.Errorf("the data connection %v, master %v, status %v", data, data.Details().Master, data.Status)
	}
	if master.Details().Helper != "ftp" {
		f.t.Errorf("the control connection %+v", plain(master))
	}
	related := uint64(0)
	for _, chain := range []string{"assign", "related"} {
		counters, err := f.host.Counters(within(f.t), nft.INet, "help", chain)
		must(f.t, err)
		related += counters[len(counters)-1].Packets
	}
	if related == 0 {
		f.t.Error("no packet was in state related")
	}
}

// master is the control connection's entry.
func (f *ftp) master() Flow {
	f.t.Helper()
	local, remote := f.conns[0].LocalAddr().(*net.TCPAddr).AddrPort(), f.conns[0].RemoteAddr().(*net.TCPAddr).AddrPort()
	flow, err := f.tracker.Get(within(f.t), Tuple{Proto: ProtoTCP,
		Src: local.Addr(), SrcPort: local.Port(), Dst: remote.Addr(), DstPort: remote.Port()}, 0)
	must(f.t, err)
	return flow
}

// fullMask is the mask of FTP's helper: any source port.
func fullMask(a netip.Addr) Tuple {
	all := netip.MustParseAddr("255.255.255.255")
	if a.Is6() {
		all = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	return Tuple{Proto: ProtoTCP, Src: all, Dst: all, DstPort: 0xffff}
}

// TestExpectationsActive has the server connect to the client.
func TestExpectationsActive(t *testing.T) {
	for name, form := range map[string]func(netip.AddrPort) string{
		"PORT": func(a netip.AddrPort) string { return "PORT " + commas(a) },
		"EPRT": func(a netip.AddrPort) string { return fmt.Sprintf("EPRT |2|%v|%d|", a.Addr(), a.Port()) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFTP(t)
			from, to := f.client.Addr4(), f.server.Addr4()
			if name == "EPRT" {
				from, to = f.client.Addr6(), f.server.Addr6()
			}
			f.connect(to)
			l, addr := f.listen(f.client, from)
			f.say(f.control, f.served, form(addr))
			e := f.expected()
			if of := collectExpectations(t, f.tracker.ExpectationsOf(within(t), f.master().Reply, 0)); len(of) != 1 || of[0].ID != e.ID {
				t.Errorf("of the connection: %v", of)
			}
			f.check(e, f.transfer(f.server, addr, l), addr)
			if left := collectExpectations(t, f.tracker.Expectations(within(t))); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestExpectationsPassive has the client connect to the server.
func TestExpectationsPassive(t *testing.T) {
	for name, form := range map[string]func(netip.AddrPort) string{
		"227": func(a netip.AddrPort) string { return "227 Entering Passive Mode (" + commas(a) + ")" },
		"229": func(a netip.AddrPort) string {
			return fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)", a.Port())
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFTP(t)
			to := f.server.Addr4()
			if name == "229" {
				to = f.server.Addr6()
			}
			f.connect(to)
			l, addr := f.listen(f.server, to)
			f.say(f.served, f.control, form(addr))
			e := f.expected()
			f.check(e, f.transfer(f.client, addr, l), addr)
		})
	}
}

// TestExpectationsTranslated has the server connect to a client behind NAT:
// the router rewrites the command, and leads the connection to the client.
func TestExpectationsTranslated(t *testing.T) {
	f := newTranslatedFTP(t)
	f.connect(f.server.Addr4())
	l, addr := f.listen(f.client, f.client.Addr4())
	outside := uncommas(t, f.say(f.control, f.served, "PORT "+commas(addr)))
	router, _ := f.host.Addrs(f.server)
	translates := outside != addr // nf_nat_ftp
	t.Logf("SUPPORT: ftp helper through NAT: %s", yesNo(translates))
	if !translates {
		t.Skip("no nf_nat_ftp in this kernel")
	}
	if outside.Addr() != router {
		t.Fatalf("the server was told %v", outside)
	}
	e := f.expected()
	want := ExpectationNAT{Reply: true, Tuple: Tuple{Proto: ProtoTCP, Src: netip.IPv4Unspecified(), SrcPort: addr.Port()}}
	if !e.Has(ExpectFieldNAT) || e.NAT != want || e.Function != "nat-follow-master" || e.Tuple.Dst != router {
		t.Errorf("got %+v", e)
	}
	data := f.transfer(f.server, outside, l)
	f.checkData(data, f.master())
	if nat, ok := data.DestinationNAT(); !ok || nat.To != addr {
		t.Errorf("led to %v, want %v", nat, addr)
	}
}

// recordExpectations keeps the expectation events of a Conn from now on until
// the test ends.
func recordExpectations(t *testing.T, c *Conn) <-chan ExpectationEvent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan ExpectationEvent, 1000)
	ready, done := make(chan bool), make(chan error, 1)
	go func() {
		var last error
		for e, err := range c.ExpectationEvents(ctx, &ExpectationEventOptions{Ready: func() { close(ready) }}) {
			if last = err; err == nil {
				events <- e
			}
		}
		done <- last
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !isOp(err, "expectation events") {
			t.Errorf("the stream ended with %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("not listening in time")
	}
	return events
}

func nextExpectation(t *testing.T, events <-chan ExpectationEvent) ExpectationEvent {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		t.Fatal("no event")
		return ExpectationEvent{}
	}
}

// TestExpectationEvents follows expectations to their ends: met, removed by
// request, and gone with their master.
func TestExpectationEvents(t *testing.T) {
	f := newFTP(t)
	events := recordExpectations(t, f.tracker)
	f.connect(f.server.Addr4())
	announce := func() (net.Listener, netip.AddrPort, Expectation) {
		l, addr := f.listen(f.client, f.client.Addr4())
		f.say(f.control, f.served, "PORT "+commas(addr))
		came := nextExpectation(t, events)
		if listed := f.expected(); came.Type != EventNew || came.Port != 0 || came.Expectation.ID != listed.ID || came.Expectation.Tuple != listed.Tuple {
			t.Fatalf("got %+v, want the coming of %+v", came, listed)
		}
		return l, addr, came.Expectation
	}
	gone := func(e Expectation, byRequest bool) {
		t.Helper()
		if got := nextExpectation(t, events); got.Type != EventDestroy || got.Expectation.ID != e.ID || got.Expectation.Master != e.Master || (got.Port != 0) != byRequest {
			t.Errorf("got %+v, want the end of %+v", got, e)
		}
	}
	l, addr, e := announce()
	f.transfer(f.server, addr, l)
	gone(e, false)

	_, _, e = announce()
	must(t, f.tracker.DeleteExpectation(within(t), e))
	gone(e, true)
	if err := f.tracker.DeleteExpectation(within(t), e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted again: %v", err)
	}

	_, _, e = announce()
	must(t, f.tracker.Delete(within(t), f.master()))
	gone(e, false)
}
