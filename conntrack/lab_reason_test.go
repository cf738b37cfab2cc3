package conntrack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// ended returns the last event of a tuple.
func (r *recorder) ended(t *testing.T, tuple Tuple) Event {
	t.Helper()
	all := r.await(t, tuple)
	return all[len(all)-1]
}

// TestReasons ends entries in every way that a namespace of its own can stage.
func TestReasons(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	events := recordEvents(t, c, EventOptions{Filter: &Filter{Proto: ProtoTCP}})

	deleted := create(t, c, entry(tupleTCP))[0]
	must(t, c.Delete(within(t), deleted))
	if e := events.ended(t, deleted.Original); e.Reason() != ReasonDeleted || e.Port == 0 {
		t.Errorf("deleted: %v, port %d: %+v", e.Reason(), e.Port, plain(e.Flow))
	}

	end := events.ended(t, s.refused())
	tells := end.Flow.Has(FieldTimeout | FieldTCP)
	if tells && end.Reason() != ReasonRemoved || end.Port != 0 {
		t.Errorf("refused: %v, port %d: %+v", end.Reason(), end.Port, plain(end.Flow))
	}

	first, second := s.reopened(t, c)
	end = events.ended(t, first.Original)
	if tells && end.Reason() != ReasonRemoved || end.Port != 0 || end.Flow.ID != first.ID {
		t.Errorf("reopened: %v, port %d: %+v", end.Reason(), end.Port, plain(end.Flow))
	}
	if second.TCP.State != TCPEstablished || second.Start <= first.Start {
		t.Errorf("opened again: %+v", plain(second))
	}
}

// refused is a connection to a closed port: its entry goes with the RST.
func (s *stage) refused() Tuple {
	s.t.Helper()
	const local, closed = 40001, 7
	to := netip.AddrPortFrom(s.server.Addr4(), closed)
	if c, err := s.client.Dial(within(s.t), "tcp", netip.AddrPortFrom(netip.Addr{}, local), to, nil); err == nil {
		s.t.Errorf("connected: %v, %v", c, c.Close())
	}
	return Tuple{Proto: ProtoTCP, Src: s.client.Addr4(), Dst: s.server.Addr4(), SrcPort: local, DstPort: closed}
}

// reopened resets a connection and makes it again from the same port: the
// kernel removes the entry of the first when it sees the SYN.
func (s *stage) reopened(t *testing.T, c *Conn) (first, second Flow) {
	t.Helper()
	tuple := Tuple{Proto: ProtoTCP, Src: s.client.Addr4(), Dst: s.server.Addr4(), SrcPort: 40002, DstPort: portOpen}
	open := func() (*net.TCPConn, Flow) {
		from, to := netip.AddrPortFrom(tuple.Src, tuple.SrcPort), netip.AddrPortFrom(tuple.Dst, tuple.DstPort)
		conn, err := s.client.Dial(within(t), "tcp", from, to, &lab.DialOptions{ReuseAddr: true})
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() }) // closed already, the first of them
		a, err := s.listeners[true].Accept()
		must(t, err)
		t.Cleanup(func() { must(t, a.Close()) })
		f, err := c.Get(within(t), tuple, 0)
		must(t, err)
		return conn.(*net.TCPConn), f
	}
	conn, first := open()
	must(t, conn.SetLinger(0), conn.Close())
	_, second = open()
	return first, second
}

// TestEventTime finds when an event happened, or that the kernel does not say.
func TestEventTime(t *testing.T) {
	c, h := emptyTable(t)
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"))
	events := recordEvents(t, c, EventOptions{})
	before := Timestamp(time.Now().UnixNano())
	flow := create(t, c, entry(tupleTCP))[0]
	must(t, c.Delete(within(t), flow))
	got := events.await(t, flow.Original)
	after := Timestamp(time.Now().UnixNano())
	t.Logf("SUPPORT: time of an event: %s", yesNo(got[0].At != 0))
	if got[0].At == 0 {
		return
	}
	for _, e := range got {
		if e.At < before || e.At > after {
			t.Errorf("%v at %d, not between %d and %d", e.Type, e.At, before, after)
		}
		before = e.At
	}
}

// seen is what conntrack -E and Events both tell of an event.
type seen struct {
	event              string
	original, reply    Tuple
	zone               uint16
	id, mark, port     uint32
	state              TCPState
	timeout            time.Duration
	unreplied, assured bool
}

func asSeen(e Event) seen {
	f := &e.Flow
	return seen{event: e.Type.String(), original: f.Original, reply: f.Reply, zone: f.Zone, id: f.ID, mark: f.Mark, port: e.Port,
		unreplied: f.Unreplied(), assured: f.Assured(), state: f.TCP.State, timeout: f.Timeout}
}

// parseEvents reads the output of conntrack -E.
func parseEvents(t *testing.T, text []byte) []seen {
	t.Helper()
	var list []seen
	for e, err := range ReadEvents(bytes.NewReader(text)) {
		must(t, err)
		list = append(list, asSeen(e))
	}
	return list
}

// listeners counts the netfilter sockets of a host that are in groups.
func listeners(t *testing.T, h *lab.Host) int {
	t.Helper()
	b, err := fs.ReadFile(h.FS(), "net/netlink")
	must(t, err)
	n := 0
	for line := range strings.Lines(string(b)) {
		// sk Eth Pid Groups …
		if f := strings.Fields(line); len(f) > 3 && f[1] == "12" && f[3] != "00000000" {
			n++
		}
	}
	return n
}

// TestEventsAgainstTool compares Events with conntrack -E: the same events in
// the same order, caused by the same.
func TestEventsAgainstTool(t *testing.T) {
	lab.Tool(t, "conntrack")
	s := newStage(t)
	c := dialHost(t, s.client)
	files := []string{filepath.Join(t.TempDir(), "all"), filepath.Join(t.TempDir(), "new")}
	for i, which := range []string{"NEW,UPDATES,DESTROY", "NEW"} {
		s.shows(which, files[i])
	}
	events := recordEvents(t, c, EventOptions{})
	for end := time.Now().Add(patience); listeners(t, s.client) < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d listeners", listeners(t, s.client))
		}
	}
	s.everything(c)
	s.settled(c)
	for f, err := range c.All(within(t), nil) {
		must(t, err)
		must(t, c.Delete(within(t), f))
	}
	last := entry(tuple(ProtoUDP, "10.9.9.9:9", "10.9.9.9:999"))
	must(t, c.Create(within(t), last))

	var all, news []seen
	for e := range events.events {
		all = append(all, asSeen(e))
		if e.Type == EventNew {
			news = append(news, all[len(all)-1])
		}
		if e.Flow.Original == last.Original {
			break
		}
	}
	for i, want := range [][]seen{all, news} {
		got := s.shown(files[i], "dport=999 ")
		if !slices.Equal(got, want) {
			t.Errorf("%s:\nconntrack %+v\nEvents    %+v", files[i], got, want)
		}
	}
	if len(all) < 50 || len(news) < 20 {
		t.Errorf("only %d events, %d of them new", len(all), len(news))
	}
}

// shows runs conntrack -E until the test ends.
func (s *stage) shows(events, file string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Exec(ctx, "sh", "-c", `exec "$0" -E -e "$1" -o id,timestamp,userspace,extended > "$2"`,
			lab.Tool(s.t, "conntrack"), events, file)
		done <- err
	}()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "killed") {
			s.t.Errorf("conntrack -E: %v", err)
		}
	})
}

// shown is what conntrack -E wrote up to a line with the mark.
func (s *stage) shown(file, mark string) []seen {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(file)
		must(s.t, err)
		if strings.Contains(string(b), mark) && strings.HasSuffix(string(b), "\n") {
			return parseEvents(s.t, b)
		}
	}
	s.t.Fatalf("%s: no line with %q", file, mark)
	return nil
}
