package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// readStats reads a host's counters from /proc, where they are.
func readStats(t *testing.T, h *lab.Host) []Stats {
	t.Helper()
	s, err := ReadStats(h.FS())
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	must(t, err)
	return s
}

// TestStats does what some of the counters count, and reads them in each way.
func TestStats(t *testing.T) {
	s := newStage(t)
	c := dialHost(t, s.client)
	before, err := c.Stats(within(t))
	must(t, err)
	master := helped(t, c, entry(tupleFTP), "ftp").Original
	must(t, c.CreateExpectation(within(t), announced(master, 1)), c.CreateExpectation(within(t), announced(master, 2)),
		c.FlushExpectations(within(t)))
	s.invalid(c)

	cpus, err := c.Stats(within(t))
	must(t, err)
	d := Total(cpus).Sub(Total(before))
	if d.Insert != 1 || d.ExpectCreate != 2 || d.ExpectDelete != 2 || d.ExpectNew != 0 || d.Invalid == 0 {
		t.Errorf("counted %v", d)
	}
	for name, field := range map[string]StatFields{"clash_resolve": StatClashResolve, "chaintoolong": StatChainTooLong} {
		t.Logf("SUPPORT: counter %s: %s", name, yesNo(d.Has(field)))
	}
	const always = StatFound | StatInvalid | StatInsert | StatInsertFailed | StatDrop | StatEarlyDrop | StatError |
		StatSearchRestart | StatExpectNew | StatExpectCreate | StatExpectDelete
	if !d.Has(always) || d.CPU != -1 {
		t.Errorf("counters %b on CPU %d", d.Fields, d.CPU)
	}
	sameStats(t, c, s.client)
}

// sameStats reads both until no retransmission came between.
func sameStats(t *testing.T, c *Conn, h *lab.Host) {
	t.Helper()
	var files, cpus []Stats
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		cpus, err = c.Stats(within(t))
		must(t, err)
		if files = readStats(t, h); slices.Equal(files, cpus) {
			return
		}
	}
	t.Errorf("/proc    %v\nnetlink %v", files, cpus)
}

// invalid sends a segment of a connection that the table has forgotten.
func (s *stage) invalid(c *Conn) {
	s.t.Helper()
	must(s.t, s.client.SetSysctl("net.netfilter.nf_conntrack_tcp_loose", "0"))
	a, b := s.connect(s.server.Addr4(), portOpen)
	s.talk(a, b)
	local := a.LocalAddr().String()
	flow, err := c.Get(within(s.t), tuple(ProtoTCP, local, a.RemoteAddr().String()), 0)
	must(s.t, err, c.Delete(within(s.t), flow))
	_, err = a.Write([]byte("x"))
	must(s.t, err)
}

var statWords = regexp.MustCompile(`[a-z_]+=\d+`)

// TestStatsAgainstTool compares with conntrack -S, which does not show the
// counters of expectations.
func TestStatsAgainstTool(t *testing.T) {
	lab.Tool(t, "conntrack")
	c, h := emptyTable(t)
	create(t, c, entry(tupleTCP), entry(tupleUDP6))
	cpus, err := c.Stats(within(t))
	must(t, err)
	var got strings.Builder
	for _, s := range cpus {
		s.clear(StatExpectNew | StatExpectCreate | StatExpectDelete)
		fmt.Fprintln(&got, s)
	}
	out, err := h.Exec(within(t), "conntrack", "-S")
	must(t, err)
	var want strings.Builder
	for line := range strings.Lines(string(out)) {
		fmt.Fprintln(&want, strings.Join(statWords.FindAllString(line, -1), " "))
	}
	if got.String() != want.String() || Total(cpus).Insert != 2 {
		t.Errorf("got\n%swant\n%s", &got, &want)
	}
}

// TestUsage counts entries in each way.
func TestUsage(t *testing.T) {
	c, h := emptyTable(t)
	const n = 17
	fill(t, c, flows(n))
	got, err := c.Usage(within(t))
	must(t, err)
	files, err := ReadUsage(h.FS())
	must(t, err)
	if got.Count != n || files.Count != n || got.Max != files.Max || !got.Has(UsageMax) || !files.Has(UsageMax|UsageBuckets) {
		t.Errorf("got %+v, of /proc %+v", got, files)
	}
	if load, ok := files.Load(); !ok || load <= 0 || load > 1 {
		t.Errorf("load %v", load)
	}
	entries, table := files.Memory()
	if entries < n*128 || entries > n*1024 || table < 1024 {
		t.Errorf("memory %d and %d bytes of %+v", entries, table, files)
	}
	if files.Has(UsageEntryBytes) && (files.EntryBytes < 128 || files.EntryBytes > 1024) {
		t.Errorf("entries of %d bytes", files.EntryBytes)
	}
}

func TestUsageAgainstTool(t *testing.T) {
	lab.Tool(t, "conntrack")
	c, h := emptyTable(t)
	fill(t, c, flows(5))
	u, err := c.Usage(within(t))
	must(t, err)
	out, err := h.Exec(within(t), "conntrack", "-C")
	must(t, err)
	if got, want := fmt.Sprintln(u.Count), string(out); got != want || u.Count != 5 {
		t.Errorf("got %s, want %s", got, want)
	}
}
