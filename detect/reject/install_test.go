package reject

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// installOK is for tests on every operating system.
func installOK(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pairsAt is the instant n milliseconds after the begin of a test.
func pairsAt(n int) time.Time { return time.Unix(1000, 0).Add(time.Duration(n) * time.Millisecond) }

func pairsHeader(port uint16, seq uint32) packet.Header {
	return packet.Header{
		Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 2}),
		Proto: packet.ProtoTCP, SrcPort: port, DstPort: 80, Seq: seq,
	}
}

// pairsDue returns the sequence numbers of all that is due.
func pairsDue(p *pairs, now time.Time) (seqs []uint32) {
	for e, ok := p.due(now); ok; e, ok = p.due(now) {
		seqs = append(seqs, e.header.Seq)
	}
	return seqs
}

// TestPairs is told what was logged at which millisecond: "b" before and "a"
// after the rules, with the port and the sequence number; "l" a loss, "o" an
// overrun, "r" an answer to the port's packet, which must be of that number.
func TestPairs(t *testing.T) {
	type step struct {
		at   int
		what string
		port uint16
		seq  uint32
	}
	for name, tt := range map[string]struct {
		steps []step
		at    int
		want  []uint32
		left  uint64
	}{
		"passes":             {[]step{{0, "b", 1, 1}, {0, "a", 1, 1}}, 500, nil, 0},
		"does not pass":      {[]step{{0, "b", 1, 1}}, 100, []uint32{1}, 0},
		"not yet":            {[]step{{0, "b", 1, 1}}, 99, nil, 0},
		"another passes":     {[]step{{0, "b", 1, 1}, {0, "b", 2, 2}, {1, "a", 2, 2}}, 500, []uint32{1}, 0},
		"the later passes":   {[]step{{0, "b", 1, 1}, {9, "b", 1, 2}, {9, "a", 1, 2}}, 500, []uint32{1}, 0},
		"the earlier passes": {[]step{{0, "b", 1, 1}, {0, "a", 1, 1}, {9, "b", 1, 2}}, 500, []uint32{2}, 0},
		"neither passes":     {[]step{{0, "b", 1, 1}, {9, "b", 1, 2}}, 500, []uint32{1, 2}, 0},
		"one is due":         {[]step{{0, "b", 1, 1}, {50, "b", 1, 2}}, 120, []uint32{1}, 0},
		"both pass":          {[]step{{0, "b", 1, 1}, {0, "b", 1, 2}, {1, "a", 1, 2}, {1, "a", 1, 1}}, 500, nil, 0},
		"only after":         {[]step{{0, "a", 1, 1}, {1, "b", 1, 2}}, 500, []uint32{2}, 0},
		"answered":           {[]step{{0, "b", 1, 1}, {0, "b", 1, 2}, {1, "r", 1, 2}}, 500, []uint32{1}, 0},
		"nothing to answer":  {[]step{{0, "b", 1, 1}, {0, "a", 1, 1}, {1, "r", 1, 0}}, 500, nil, 0},
		"loss":               {[]step{{0, "b", 1, 1}, {5, "l", 0, 0}, {6, "a", 1, 1}, {6, "b", 2, 2}}, 500, []uint32{2}, 0},
		"overrun":            {[]step{{0, "b", 1, 1}, {5, "o", 0, 0}, {6, "b", 2, 2}, {7, "l", 0, 0}, {8, "b", 3, 3}}, 500, []uint32{3}, 0},
		"overrun, no gap":    {[]step{{0, "b", 1, 1}, {5, "o", 0, 0}, {6, "b", 2, 2}, {406, "b", 3, 3}}, 600, []uint32{3}, 0},
		"too many":           {[]step{{0, "b", 1, 1}, {1, "b", 2, 2}, {2, "b", 3, 3}, {3, "b", 4, 4}}, 500, []uint32{2, 3, 4}, 1},
		"too many, passed":   {[]step{{0, "b", 1, 1}, {0, "a", 1, 1}, {1, "b", 2, 2}, {2, "b", 3, 3}, {3, "b", 4, 4}}, 500, []uint32{2, 3, 4}, 0},
	} {
		p := newPairs(100*time.Millisecond, 3)
		for _, s := range tt.steps {
			h := pairsHeader(s.port, s.seq)
			switch s.what {
			case "b":
				p.before(passing{header: h, hook: nflog.Input, at: pairsAt(s.at)})
			case "a":
				p.after(&h, nflog.Input)
			case "r":
				if e, ok := p.answered(PacketTuple(h)); ok != (s.seq != 0) || e.header.Seq != s.seq {
					t.Errorf("%s: answered %v, %t", name, e, ok)
				}
			default:
				p.lost(&nflog.Lost{Overrun: s.what == "o"}, pairsAt(s.at))
			}
		}
		if got := pairsDue(p, pairsAt(tt.at)); !slices.Equal(got, tt.want) || p.forgotten != tt.left {
			t.Errorf("%s: due %v, forgotten %d, want %v and %d", name, got, p.forgotten, tt.want, tt.left)
		}
		if pairsDue(p, pairsAt(9999)); len(p.by) != 0 || p.len() != 0 {
			t.Errorf("%s: left are %v", name, p.by)
		}
	}
}

// What passed one hook is not what waits at another, and is known for as long as
// the packets are.
func TestPairsHooks(t *testing.T) {
	p := newPairs(100*time.Millisecond, 9)
	h := pairsHeader(1, 1)
	for _, hook := range []nflog.Hook{nflog.Output, nflog.Input} { // over loopback
		p.before(passing{header: h, hook: hook, at: pairsAt(0)})
	}
	p.after(&h, nflog.Output)
	tuple := PacketTuple(h)
	if !p.passed(tuple, nflog.Output) || p.passed(tuple, nflog.Input) {
		t.Error("the hooks are mixed up")
	}
	if got := p.untilDue(pairsAt(40)); got != 60*time.Millisecond {
		t.Errorf("due in %v", got)
	}
	if got := p.untilDue(pairsAt(95)); got != 12500*time.Microsecond {
		t.Errorf("due in %v, packet by packet", got)
	}
	if e, ok := p.due(pairsAt(100)); !ok || e.hook != nflog.Input {
		t.Errorf("due is %v, %t", e, ok)
	}
	if p.passed(tuple, nflog.Output) || p.untilDue(pairsAt(100)) != time.Hour {
		t.Error("nothing waits any more")
	}
}

// A packet that comes and passes allocates nothing.
func TestPairsAllocs(t *testing.T) {
	p := newPairs(time.Millisecond, 1024)
	n := uint16(0)
	turn := func() {
		n++
		now := pairsAt(int(n))
		h := pairsHeader(n%64, uint32(n))
		p.before(passing{header: h, hook: nflog.Input, at: now})
		p.after(&h, nflog.Input)
		pairsDue(p, now)
	}
	for range 5000 {
		turn()
	}
	if got := testing.AllocsPerRun(5000, turn); got >= 1 {
		t.Errorf("%v allocations a packet", got)
	}
	if cap(p.queue) > 1024 {
		t.Errorf("room for %d packets", cap(p.queue))
	}
}

func TestReasonBudget(t *testing.T) {
	b := reasonBudget{perSecond: 2}
	for i, tt := range []struct {
		at   int
		want bool
	}{{0, false}, {1, false}, {1000, false}, {1001, false}, {1002, true}, {1003, false}, {3000, false}} {
		if got := b.spend(pairsAt(tt.at)); got != tt.want {
			t.Errorf("%d: %t", i, got)
		}
	}
	if b.rested(pairsAt(1002 + 9999)) {
		t.Error("rested too early")
	}
	if now := pairsAt(1002 + 10000); !b.rested(now) || b.rested(now) {
		t.Error("does not rest, or twice")
	}
	if b.spend(pairsAt(20000)) || (&reasonBudget{}).spend(pairsAt(0)) {
		t.Error("spent at once")
	}
	back := reasonBudget{perSecond: 1} // the clock goes backwards
	if back.spend(pairsAt(5000)); back.spend(pairsAt(0)) {
		t.Error("a second that is to come")
	}
}

// restoreFiles are sysctls in a directory of their own.
func restoreFiles(t *testing.T, values ...string) restoreDir {
	t.Helper()
	dir := t.TempDir()
	installOK(t, os.Mkdir(filepath.Join(dir, "nf_log"), 0o700))
	for i, s := range reasonSysctls {
		installOK(t, os.WriteFile(filepath.Join(dir, s.name), []byte(values[i]+"\n"), 0o600))
	}
	return restoreDir(dir)
}

func restoreValues(t *testing.T, dir restoreDir) (values []string) {
	t.Helper()
	for _, s := range reasonSysctls {
		v, err := dir.get(s.name)
		installOK(t, err)
		values = append(values, v)
	}
	return values
}

// TestRestore changes sysctls, has somebody meddle, and sets them back by what
// was written down.
func TestRestore(t *testing.T) {
	for _, tt := range []struct {
		before, meddle []string
		after          []string
		record         string
	}{
		{[]string{"NONE", "NONE", "0"}, nil, []string{"NONE", "NONE", "0"}, "was nf_log/2=NONE nf_log/10=NONE nf_conntrack_log_invalid=0"},
		{[]string{"nf_log_ipv4", "NONE", "0"}, nil, []string{"nf_log_ipv4", "NONE", "0"}, "was nf_log/2=nf_log_ipv4 nf_log/10=NONE nf_conntrack_log_invalid=0"},
		{[]string{"nfnetlink_log", "nfnetlink_log", "6"}, nil, []string{"nfnetlink_log", "nfnetlink_log", "6"}, "was nf_conntrack_log_invalid=6"},
		{[]string{"nfnetlink_log", "nfnetlink_log", "255"}, nil, []string{"nfnetlink_log", "nfnetlink_log", "255"}, "was"},
		{[]string{"NONE", "NONE", "0"}, []string{"x", "nfnetlink_log", "6"}, []string{"x", "NONE", "6"}, "was nf_log/2=NONE nf_log/10=NONE nf_conntrack_log_invalid=0"},
	} {
		dir := restoreFiles(t, tt.before...)
		was, err := dir.wanted()
		installOK(t, err)
		if got := recordOf(was); got != tt.record || len(got) > 128 {
			t.Errorf("%q: record %q, want %q", tt.before, got, tt.record)
		}
		for _, s := range was {
			installOK(t, dir.set(restoreSysctl{s.name, restoreGiven(s.name)}))
		}
		for i, v := range tt.meddle {
			installOK(t, dir.set(restoreSysctl{reasonSysctls[i].name, v}))
		}
		parsed, err := parseRecord(recordOf(was))
		if err != nil || !slices.Equal(parsed, was) {
			t.Errorf("%q: parsed %v, %v", tt.before, parsed, err)
		}
		installOK(t, dir.restore(parsed))
		if got := restoreValues(t, dir); !slices.Equal(got, tt.after) {
			t.Errorf("%q: restored %q, want %q", tt.before, got, tt.after)
		}
	}
}

// The host's own log of INVALID packets is left where it goes.
func TestRestoreWantedOfUser(t *testing.T) {
	dir := restoreFiles(t, "nf_log_ipv4", "nf_log_ipv6", "255")
	if was, err := dir.wanted(); !errors.Is(err, fs.ErrExist) || was != nil || !strings.Contains(err.Error(), "255 to nf_log_ipv4") {
		t.Errorf("got %v, %v", was, err)
	}
	if _, err := restoreDir(t.TempDir()).wanted(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without sysctls: %v", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{"", "was", "was nf_log/2=NONE", "was nf_log/2=", "was ../../x=1", "of somebody", "was nf_log/2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, comment string) {
		was, err := parseRecord(comment)
		if err != nil && was != nil {
			t.Error("a value with an error")
		}
		for _, s := range was {
			if restoreGiven(s.name) == "" || s.value == "" {
				t.Errorf("%q: would set %v", comment, s)
			}
		}
		if again, err := parseRecord(recordOf(was)); err != nil || !slices.Equal(again, was) {
			t.Errorf("%v became %v, %v", was, again, err)
		}
	})
}

func TestFreeGroup(t *testing.T) {
	bound := parseGroups([]byte("20100   4242     0 2 65531    100  1\n    0      1     0 2 65531 100  1\nx\n\n70000 1\n"))
	if len(bound) != 2 || !bound[0] || !bound[20100] {
		t.Errorf("bound %v", bound)
	}
	if got := freeGroup(bound, []uint16{20101, 5}); got != 20102 {
		t.Errorf("got %d", got)
	}
}

func TestInstallAlive(t *testing.T) {
	for comment, want := range map[string]bool{ownerComment(): true, "of process 999999999 (x)": false, "": false, "of process x": false} {
		if _, err := os.Stat("/proc/self"); err == nil && installAlive(comment) != want {
			t.Errorf("%q: %t", comment, !want)
		}
	}
}

func TestPlanNothing(t *testing.T) {
	for _, cfg := range []*Config{nil, {}, {Groups: []uint16{1}}} {
		if p, err := cfg.Plan(); err == nil || p.Table != "" {
			t.Errorf("%+v: %v, %v", cfg, p, err)
		}
	}
	p := Plan{Table: "table inet connsleuth {\n}\n", Sysctls: []SysctlChange{{"net.a", "1", "2"}}, Missing: fs.ErrExist}
	want := "table inet connsleuth {\n}\n# sysctl net.a=2 (now 1)\n# no reasons of the kernel: file already exists\n"
	if p.String() != want {
		t.Errorf("got %q", p)
	}
}

func TestInstallNoTables(t *testing.T) {
	if err := installNoTables(&os.SyscallError{Syscall: "x", Err: syscall.EINVAL}); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_NF_TABLES") {
		t.Errorf("got %v", err)
	}
	if err := installNoTables(fs.ErrPermission); err != fs.ErrPermission { //nolint:errorlint // the same one
		t.Errorf("got %v", err)
	}
}

func BenchmarkPairs(b *testing.B) {
	p := newPairs(250*time.Millisecond, maxPassing)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		now := pairsAt(n / 50)
		h := pairsHeader(uint16(n), uint32(n))
		p.before(passing{header: h, hook: nflog.Input, at: now})
		p.after(&h, nflog.Input)
		pairsDue(p, now)
	}
}

// Where packets are lost, what waits may have passed; a loss of reasons says
// nothing of that.
func TestInstallLoss(t *testing.T) {
	w := newWatch(Config{}.withDefaults())
	w.in = &installed{pairs: newPairs(time.Second, 9)}
	w.in.pairs.before(passing{header: pairsHeader(1, 1), at: pairsAt(0)})
	for _, source := range []Source{Reasons, Packets} {
		if w.in.pairs.len() != 1 || !w.goesOn(t.Context(), source, 5, &nflog.Lost{Count: 1}) {
			t.Errorf("before a loss of %v: %d wait", source, w.in.pairs.len())
		}
	}
	if w.in.pairs.len() != 0 || len(w.losses) != 2 {
		t.Errorf("%d wait, told is %v", w.in.pairs.len(), w.losses)
	}
}
