package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// everything fills the client's table: with what packets make, and with what
// they cannot make here.
func (s *stage) everything(c *Conn) {
	s.t.Helper()
	v4, v6 := s.server.Addr4(), s.server.Addr6()
	s.tcp(v4)
	s.tcp(v6)
	s.udp(v4)
	s.udp(v6)
	s.echo("ip4:icmp", v4, 8, 0)
	s.echo("ip6:ipv6-icmp", v6, 128, 129)
	s.talk(s.connect(v4, portTranslated))
	for i, state := range []TCPState{TCPNone, TCPSynRecv, TCPFinWait, TCPLastAck, TCPSynSent2} {
		f := entry(tuple(ProtoTCP, fmt.Sprintf("10.0.0.1:%d", 1000+i), "10.0.0.2:443"))
		f.TCP.State, f.Mark = state, uint32(i)
		create(s.t, c, f)
	}
	zone := entry(tuple(ProtoTCP, "10.0.0.1:2000", "10.0.0.2:443"))
	original, reply := zone, zone
	zone.Zone, original.OriginalZone = 7, 9
	reply.Original.SrcPort, reply.Reply.DstPort, reply.ReplyZone = 2001, 2001, 11
	assured := entry(tuple(ProtoUDP, "[fd00::1]:2000", "[fd00::2]:53"))
	assured.Status = SeenReply | Assured
	create(s.t, c, zone, original, reply, assured,
		entry(tuple(ProtoGRE, "10.0.0.1:18", "10.0.0.2:52")),
		entry(tuple(112, "10.0.0.1:0", "224.0.0.18:0")))
	s.kinds(c)
}

// settled waits for the last segments of the connections that were ended.
func (s *stage) settled(c *Conn) {
	s.t.Helper()
	want := map[TCPState]int{TCPSynSent: 2, TCPCloseWait: 2, TCPTimeWait: 2, TCPClose: 2, TCPEstablished: 6}
	have := make(map[TCPState]int)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		clear(have)
		for f, err := range c.All(within(s.t), &Filter{Proto: ProtoTCP}) {
			must(s.t, err)
			if have[f.TCP.State]++; want[f.TCP.State] == 0 {
				have[f.TCP.State] = 0
			}
		}
		maps.DeleteFunc(have, func(_ TCPState, n int) bool { return n == 0 })
		if maps.Equal(have, want) {
			return
		}
	}
	s.t.Fatalf("TCP states %v, want %v", have, want)
}

// TestAgainstTools compares All with conntrack(8) and /proc over one table.
func TestAgainstTools(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	s.everything(c)
	s.settled(c)
	s.supported(c)
	t.Run("conntrack -L", func(t *testing.T) {
		lab.Tool(t, "conntrack")
		eventually(t, func() (got, want map[string]int) {
			return timeouts(t, ours(t, c)), timeouts(t, theirs(t, s.client))
		})
	})
	t.Run("ReadFlows of conntrack -L", func(t *testing.T) {
		lab.Tool(t, "conntrack")
		eventually(t, func() (got, want map[Flow]int) {
			return read(t, bytes.NewReader(theirs(t, s.client)), textual), normalised(t, c, textual)
		})
	})
	t.Run("ReadFlows of /proc/net/nf_conntrack", func(t *testing.T) {
		eventually(t, func() (got, want map[Flow]int) {
			b, err := fs.ReadFile(s.client.FS(), "net/nf_conntrack")
			if errors.Is(err, fs.ErrNotExist) {
				t.Skip(err)
			}
			must(t, err)
			return read(t, bytes.NewReader(b), procText), normalised(t, c, procText)
		})
	})
}

// eventually compares two looks at a live table, which may change between
// them: timeouts may differ by a second, and by one more where each look
// rounds for itself.
func eventually[K comparable](t *testing.T, looks func() (got, want map[K]int)) {
	t.Helper()
	var got, want map[K]int
	for range 5 {
		got, want = looks()
		if len(got) > 0 && maps.EqualFunc(got, want, func(a, b int) bool { return max(a-b, b-a) <= 2 }) {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	for k, n := range got {
		if m, ok := want[k]; !ok || max(n-m, m-n) > 2 {
			t.Errorf("got  %d of %+v", n, k)
		}
	}
	for k, m := range want {
		if n, ok := got[k]; !ok || max(n-m, m-n) > 2 {
			t.Errorf("want %d of %+v", m, k)
		}
	}
	t.Fatalf("%d entries, want %d", len(got), len(want))
}

// ours is the table as All and Append show it.
func ours(t *testing.T, c *Conn) []byte {
	t.Helper()
	var b []byte
	for f, err := range c.All(within(t), nil) {
		must(t, err)
		b = append(f.Append(b, LayoutFamily|LayoutID|LayoutTimes|LayoutAge), '\n')
	}
	return b
}

// theirs is the table as conntrack(8) shows it.
func theirs(t *testing.T, h *lab.Host) []byte {
	t.Helper()
	var text []byte
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := h.Exec(within(t), "conntrack", "-L", "-f", family, "-o", "extended,id,ktimestamp")
		must(t, err)
		text = append(text, out...)
	}
	return text
}

var timeLeft = regexp.MustCompile(`^(ipv\d +\d+ \S+ +\d+ )(\d+) `)

// timeouts maps each line, without its timeout, to the timeout.
func timeouts(t *testing.T, text []byte) map[string]int {
	t.Helper()
	m := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		found := timeLeft.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("no timeout: %s", line)
		}
		n, err := strconv.Atoi(found[2])
		must(t, err)
		m[found[1]+line[len(found[0]):]] = n
	}
	return m
}

// textual leaves of a flow what conntrack -L -o extended,id,ktimestamp shows of
// it, without the timeout.
func textual(f Flow) Flow {
	f.Timeout, f.Start = 0, f.Start-f.Start%1e9
	f.TCP = TCPInfo{State: f.TCP.State}
	f.Status &= SeenReply | Assured | Offload | HWOffload
	d := f.Details()
	d = Details{Helper: d.Helper, SecurityContext: d.SecurityContext,
		SCTP: SCTPInfo{State: d.SCTP.State}, DCCP: DCCPInfo{State: d.DCCP.State}}
	f.setDetails(d)
	return f
}

// procText leaves what /proc/net/nf_conntrack shows, where the reader's own
// reference is counted in use=, and the default zone is shown as zone=0.
func procText(f Flow) Flow {
	f = textual(f)
	f.Fields &^= FieldID | FieldSecmark | FieldStart | FieldHelper
	if f.Zone == 0 {
		f.Fields &^= FieldZone
	}
	f.ID, f.Use, f.Secmark, f.Start = 0, 0, 0, 0
	d := f.Details()
	d.Helper = ""
	f.setDetails(d)
	return f
}

// read maps the flows of a text, without their timeouts, to the timeouts.
func read(t *testing.T, r io.Reader, keep func(Flow) Flow) map[Flow]int {
	t.Helper()
	m := make(map[Flow]int)
	for f, err := range ReadFlows(r) {
		must(t, err)
		m[keep(f)] = int(f.Timeout / time.Second)
	}
	return m
}

// normalised is the same of the table itself.
func normalised(t *testing.T, c *Conn, keep func(Flow) Flow) map[Flow]int {
	t.Helper()
	m := make(map[Flow]int)
	for f, err := range c.All(within(t), nil) {
		must(t, err)
		m[keep(f)] = int(f.Timeout / time.Second)
	}
	return m
}

// TestReadSettingsOfHost reads a namespace's own, and sees a change of it.
func TestReadSettingsOfHost(t *testing.T) {
	_, h := emptyTable(t)
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "1234"),
		h.SetSysctl("net.netfilter.nf_conntrack_acct", "1"))
	s, err := ReadSettings(h.FS())
	must(t, err)
	checkSettings(t, s)
	if s.Timeouts.TCPEstablished != 1234*time.Second || !s.Accounting || s.Count != 0 {
		t.Errorf("got %+v", s)
	}
}

// TestStatusFilter asks the kernel for half of the table by status. Whether it
// did so or not, the flows that come out are the same.
func TestStatusFilter(t *testing.T) {
	c, _ := emptyTable(t)
	for i := range 10 {
		f := entry(tuple(ProtoUDP, fmt.Sprintf("10.0.0.1:%d", 1000+i), "10.0.0.2:53"))
		if i%2 == 0 {
			f.Status = SeenReply | Assured
		}
		create(t, c, f)
	}
	whole, err := all(t, c, nil)
	must(t, err)
	for name, filter := range map[string]*Filter{
		"set":   {StatusSet: SeenReply | Assured},
		"unset": {StatusUnset: SeenReply},
		"both":  {StatusSet: Confirmed, StatusUnset: Assured},
		"none":  {StatusSet: Dying},
	} {
		want := slices.DeleteFunc(slices.Clone(whole), func(f Flow) bool { return !filter.Match(&f) })
		got, err := all(t, c, filter)
		if !sameFlows(got, want) || err != nil {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
		rows, flagged := 0, 0
		for m, err := range c.nl.Dump(within(t), dumpRequest(filter)) {
			must(t, err)
			if rows++; m.Filtered() {
				flagged++
			}
		}
		if name == "unset" {
			t.Logf("SUPPORT: dump filter by status in the kernel: %s", yesNo(rows == len(want)))
		}
		if rows != len(want) && flagged > 0 {
			t.Errorf("%s: the kernel says it filtered, and sent %d rows for %d", name, rows, len(want))
		}
	}
}

func yesNo(yes bool) string { return map[bool]string{true: "yes", false: "no"}[yes] }

// sameFlows compares two looks at entries that nothing changes but time.
func sameFlows(a, b []Flow) bool {
	return slices.EqualFunc(a, b, func(a, b Flow) bool { return timeless(a) == timeless(b) })
}

func timeless(f Flow) Flow {
	f.Timeout = 0
	return f
}
