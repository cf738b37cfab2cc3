package conntrack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// kinds makes entries of the protocols and details that no packet makes here.
func (s *stage) kinds(c *Conn) {
	s.t.Helper()
	timestamp := tuple(ProtoICMP, "10.0.0.1:0", "10.0.0.2:0")
	timestamp.ICMPType, timestamp.ICMPID = 13, 5
	create(s.t, c, entry(timestamp),
		entry(tuple(ProtoUDPLite, "10.0.0.1:18", "10.0.0.2:52")),
		entry(tuple(ProtoUDP, "[::192.0.2.1]:18", "[2001:db8:0:1:0:2::]:52")),
		entry(tuple(ProtoUDP, "[::ffff:192.0.2.1]:18", "[::2]:52")))
	sctp := entry(tuple(ProtoSCTP, "10.0.0.1:18", "10.0.0.2:52"))
	must(s.t, createWith(s.t, c, sctp, sctpInfo(SCTPCookieEchoed)))
	must(s.t, createWith(s.t, c, entry(tuple(ProtoDCCP, "10.0.0.1:18", "10.0.0.2:52")), nil))
	ftp := entry(tuple(ProtoTCP, "10.0.0.1:18", "10.0.0.2:21"))
	ftp.TCP.State = TCPSynRecv
	err := createWith(s.t, c, ftp, func(b *nfnl.Builder) {
		b.Nested(ctaHelp, func() { b.String(ctaHelpName, "ftp") })
	})
	if err != nil && !errors.Is(err, errors.ErrUnsupported) { // the helper may be missing
		s.t.Fatal(err)
	}
}

// supported tells what the kernel made of kinds.
func (s *stage) supported(c *Conn) {
	s.t.Helper()
	flows, err := all(s.t, c, nil)
	must(s.t, err)
	has := func(field Fields) bool {
		return slices.ContainsFunc(flows, func(f Flow) bool { return f.Has(field) })
	}
	s.t.Logf("SUPPORT: DCCP tracker: %s", yesNo(has(FieldDCCP)))
	s.t.Logf("SUPPORT: SCTP tracker: %s", yesNo(has(FieldSCTP)))
	s.t.Logf("ftp helper: %s", yesNo(has(FieldHelper)))
}

// createWith makes an entry with more attributes.
func createWith(t testing.TB, c *Conn, f Flow, more func(b *nfnl.Builder)) error {
	t.Helper()
	m, err := encodeCreate(&f)
	must(t, err)
	if more != nil {
		b := nfnl.NewBuilder(0, 0)
		more(b)
		m.Data = slices.Concat(m.Data, b.Message().Data)
	}
	return c.nl.Do(within(t), m, nil)
}

func sctpInfo(state SCTPState) func(b *nfnl.Builder) {
	return func(b *nfnl.Builder) {
		b.Nested(ctaProtoinfo, func() {
			b.Nested(ctaProtoinfoSCTP, func() {
				b.U8(ctaSCTPState, uint8(state))
				b.U32(ctaSCTPTagOrig, 0x01020304)
				b.U32(ctaSCTPTagReply, 0x05060708)
			})
		})
	}
}

// TestEventTextAgainstTool runs conntrack -E beside Events: the lines are the
// same word for word, and what is read of them is written as it was.
func TestEventTextAgainstTool(t *testing.T) {
	s := newStage(t)
	lab.Tool(t, "conntrack")
	c := dialHost(t, s.client)
	events := recordEvents(t, c, EventOptions{})
	began := time.Now()
	lines := s.toolEvents(t, func() {
		s.talk(s.connect(s.server.Addr4(), portTranslated))
		s.udp(s.server.Addr6())
		s.kinds(c)
		flows, err := all(t, c, nil)
		must(t, err)
		for _, f := range flows {
			must(t, c.Delete(within(t), f))
		}
	})
	var got, want []string
	for i, line := range lines {
		e, err := ParseEvent(line)
		must(t, err)
		if back := string(e.Append(nil, everyLayout)); back != written(line) {
			t.Errorf("got  %s\nwant %s", back, written(line))
		}
		if at := e.At.Time(); at.Before(began.Add(-time.Second)) || at.After(time.Now()) {
			t.Errorf("at %v: %s", at, line)
		}
		if e.Type == EventDestroy && e.Port == 0 {
			t.Errorf("nobody deleted it: %s", line)
		}
		_, line, _ = strings.Cut(line, "]\t")
		line, _, _ = strings.Cut(line, " [USERSPACE]")
		want = append(want, line)
		select {
		case e := <-events.events:
			got = append(got, string(e.Append(nil, LayoutFamily|LayoutID|LayoutTimes|LayoutAge)))
		case <-time.After(patience):
			t.Fatalf("%d events of %d", i, len(lines))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// toolEvents returns what conntrack -E prints of what do does, up to an entry
// that is made last.
func (s *stage) toolEvents(t *testing.T, do func()) (lines []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "events")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.client.Exec(ctx, "sh", "-c",
			`exec conntrack -E -b 1000000 -o extended,id,timestamp,ktimestamp,userspace >"$0"`, out)
		done <- err
	}()
	s.awaitListeners(t, 2) // Events and the tool
	do()
	create(t, dialHost(t, s.client), entry(later))
	text := poll(t, func() ([]byte, bool) {
		b, err := os.ReadFile(out)
		must(t, err)
		last := bytes.LastIndex(b, []byte(later.String()))
		return b, last >= 0 && bytes.HasSuffix(b, []byte("\n"))
	})
	cancel()
	if err := <-done; !errors.Is(ctx.Err(), context.Canceled) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// awaitListeners waits until n netfilter sockets have joined a group.
func (s *stage) awaitListeners(t *testing.T, n int) {
	t.Helper()
	poll(t, func() (none struct{}, ok bool) {
		b, err := fs.ReadFile(s.client.FS(), "net/netlink")
		must(t, err)
		listening := 0
		for line := range strings.Lines(string(b)) {
			// sk Eth Pid Groups …; 12 is NETLINK_NETFILTER.
			if f := strings.Fields(line); f[1] == "12" && f[3] != "00000000" {
				listening++
			}
		}
		return none, listening >= n
	})
}

// poll looks until there is what is waited for.
func poll[T any](t *testing.T, look func() (T, bool)) T {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		v, ok := look()
		switch {
		case ok:
			return v
		case time.Now().After(end):
			t.Fatal("not in time")
		}
	}
}
