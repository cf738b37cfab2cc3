package conntrack

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/internal/fixture"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestStatsMerge has the two dumps come in different orders.
func TestStatsMerge(t *testing.T) {
	cpu, expect := fixture.Netlink(t, "testdata/stats/cpu.hex", nfgenmsgLen), fixture.Netlink(t, "testdata/stats/expect.hex", nfgenmsgLen)
	other := slices.Clone(expect)
	other[3] = 0 // nfgenmsg.res_id
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		switch r.Type {
		case 0x104:
			return [][]byte{nfnltest.Message(0x104, nfnl.Multi, r.Seq, cpu), nfnltest.Done(r.Seq, 0)}
		case 0x203: // answered with another type: ctnetlink_exp_stat_fill_info
			return [][]byte{nfnltest.Message(0x103, nfnl.Multi, r.Seq, expect), nfnltest.Message(0x103, nfnl.Multi, r.Seq, other), nfnltest.Done(r.Seq, 0)}
		}
		t.Errorf("request %#x", r.Type)
		return nil
	})
	const fields = StatExpectNew | StatExpectCreate | StatExpectDelete
	want := []Stats{
		{CPU: 0, Fields: fields, ExpectCreate: 1},
		{CPU: 1, Fields: fields | (StatChainTooLong<<1 - 1), Insert: 1, ExpectCreate: 1},
	}
	if got, err := c.Stats(t.Context()); !slices.Equal(got, want) || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestStatsMalformed(t *testing.T) {
	for name, data := range map[string][]byte{"header": {0, 0, 0}, "counter": {0, 0, 0, 0, 6, 0, 2, 0, 1, 2, 0, 0}} {
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			return [][]byte{nfnltest.Message(r.Type, nfnl.Multi, r.Seq, data), nfnltest.Done(r.Seq, 0)}
		})
		if got, err := c.Stats(t.Context()); got != nil || !isOp(err, "stats") {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// TestStatsSub lets counters of two CPUs wrap.
func TestStatsSub(t *testing.T) {
	const all, top = StatDrop | StatInvalid, 1<<32 - 1
	before := []Stats{{CPU: 0, Fields: all, Drop: top - 1, Invalid: 5}, {CPU: 1, Fields: all | StatNew, Drop: top, New: 3}}
	after := []Stats{{CPU: 0, Fields: all, Drop: 2, Invalid: 5}, {CPU: 1, Fields: all, Drop: 4}}
	if got, want := after[0].Sub(before[0]), (Stats{CPU: 0, Fields: all, Drop: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := Total(after).Sub(Total(before)), (Stats{CPU: -1, Fields: all, Drop: 9}); got != want {
		t.Errorf("of all: got %+v, want %+v", got, want)
	}
	if got, want := Total(before), (Stats{CPU: -1, Fields: all | StatNew, Drop: 2*top - 1, Invalid: 5, New: 3}); got != want {
		t.Errorf("total: got %+v, want %+v", got, want)
	}
	if got := Total(nil); got != (Stats{CPU: -1}) || got.String() != "" {
		t.Errorf("total of none: %v", got)
	}
}

// statFS is a /proc with this file.
func statFS(text string) fs.FS {
	return fstest.MapFS{"net/stat/nf_conntrack": {Data: []byte(text)}}
}

// TestReadStats reads files as Linux 3.10, 5.10 and 6.18 write them: the same
// places, other meanings.
func TestReadStats(t *testing.T) {
	const places = "00000009  00000001 00000002 00000003 00000004 00000005 00000006 00000007 00000008 0000000a " +
		"0000000b 0000000c 0000000d  0000000e 0000000f 00000010 ffffffff\n"
	header := func(second, eighth string) string {
		return "entries  " + second + " found new invalid ignore delete " + eighth + " insert insert_failed " +
			"drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n"
	}
	common := Stats{Found: 2, Invalid: 4, Insert: 8, InsertFailed: 10, Drop: 11, EarlyDrop: 12, Error: 13, SearchRestart: 1<<32 - 1,
		ExpectNew: 14, ExpectCreate: 15, ExpectDelete: 16, Fields: StatFound | StatInvalid | StatInsert | StatInsertFailed |
			StatDrop | StatEarlyDrop | StatError | StatSearchRestart | StatExpectNew | StatExpectCreate | StatExpectDelete}
	old, middle := common, common
	old.Searched, old.New, old.Ignore, old.Delete, old.DeleteList, old.Fields = 1, 3, 5, 6, 7, old.Fields|statsObsolete
	middle.ClashResolve, middle.Fields = 1, middle.Fields|StatClashResolve
	current := middle
	current.ChainTooLong, current.Fields = 7, current.Fields|StatChainTooLong
	for text, want := range map[string]Stats{
		header("searched", "delete_list"): old,
		header("clashres", "delete_list"): middle,
		header("clashres", "chainlength"): current,
	} {
		got, err := ReadStats(statFS(text + places + places))
		second := want
		second.CPU = 1
		if !slices.Equal(got, []Stats{want, second}) || err != nil {
			t.Errorf("%sgot  %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	if got, want := current.String(), "cpu=0 found=2 invalid=4 insert=8 insert_failed=10 drop=11 early_drop=12 error=13 "+
		"search_restart=4294967295 clash_resolve=1 chaintoolong=7 expect_new=14 expect_create=15 expect_delete=16"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestReadStatsErrors(t *testing.T) {
	for want, text := range map[string]string{
		"no line of column names":                                      "",
		"nf_conntrack: no line of column names":                        "a b c\n1 2 3\n",
		"line 3: 1 columns, want 2":                                    "entries insert_failed\n1 2\n3\n",
		`line 2: insert_failed: "x" is not a hexadecimal number of 32`: "entries insert_failed\n1 x\n",
		`insert_failed: "100000000" is not a hexadecimal number`:       "entries insert_failed\n1 100000000\n",
	} {
		if got, err := ReadStats(statFS(text)); got != nil || !isOp(err, "stats") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	if _, err := ReadStats(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "modprobe nf_conntrack") {
		t.Errorf("got %v", err)
	}
}

// FuzzStats checks both readers: nothing panics, and an error comes alone.
func FuzzStats(f *testing.F) {
	f.Add(fixture.Netlink(f, "testdata/stats/cpu.hex", nfgenmsgLen), "entries insert_failed\n1 2\n")
	f.Add(fixture.Netlink(f, "testdata/stats/expect.hex", nfgenmsgLen), "insert_failed drop\n")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		for _, kind := range []uint16{0, ctaExpectStat} {
			if cpus, err := addStats(nil, b, kind); err == nil && len(cpus) != 1 {
				t.Errorf("%d rows", len(cpus))
			}
		}
		if cpus, err := parseStats(text); err != nil && cpus != nil {
			t.Errorf("%v with %v", err, cpus)
		}
	})
}

func TestUsageDecode(t *testing.T) {
	data := fixture.Netlink(t, "testdata/stats/usage.hex", nfgenmsgLen)
	for name, tt := range map[string]struct {
		data []byte
		want Usage
		text string
	}{
		"current":           {data, Usage{Count: 1, Max: 262144, Fields: UsageMax}, "1 of 262144 entries (0.0 %)"},
		"before Linux 4.18": {data[:12], Usage{Count: 1}, "1 entries"},
	} {
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if r.Type != 0x105 || r.Flags&nfnl.DumpAll != 0 {
				t.Errorf("request %#x, flags %#x", r.Type, r.Flags)
			}
			return [][]byte{nfnltest.Message(0x105, nfnl.Multi, r.Seq, tt.data), nfnltest.Acknowledge(r, 0, "", 0)}
		})
		if got, err := c.Usage(t.Context()); got != tt.want || err != nil || got.String() != tt.text {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for name, answer := range map[string]nfnltest.Handler{
		"none": refuse(0),
		"short": func(r nfnltest.Request) [][]byte {
			return [][]byte{nfnltest.Message(0x105, 0, r.Seq, data[:2]), nfnltest.Acknowledge(r, 0, "", 0)}
		},
	} {
		c, _ := fake(t, answer)
		if got, err := c.Usage(t.Context()); got != (Usage{}) || !isOp(err, "usage") {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestReadUsage(t *testing.T) {
	proc := sysctlFS(map[string]string{"max": "1000", "count": "500", "buckets": "250"})
	got, err := ReadUsage(proc)
	want := Usage{Count: 500, Max: 1000, Buckets: 250, Fields: UsageMax | UsageBuckets}
	if got != want || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	share, limited := got.Share()
	load, ok := got.Load()
	entries, table := got.Memory()
	if share != 0.5 || !limited || load != 4 || !ok || entries != 500*256 || table != 250*8 || got.String() != "500 of 1000 entries (50.0 %)" {
		t.Errorf("share %v, load %v, memory %d and %d: %v", share, load, entries, table, got)
	}
	proc["slabinfo"] = &fstest.MapFile{Data: []byte("slabinfo - version: 2.1\n# name <active_objs>\n" +
		"nf_conntrack_expect 0 0 208 19 1\nnf_conntrack 96 160 320 16 1 : tunables 0 0 0\n")}
	proc["sys/net/netfilter/nf_conntrack_max"].Data = []byte("0\n")
	got, err = ReadUsage(proc)
	if want = (Usage{Count: 500, Buckets: 250, EntryBytes: 320, Fields: UsageMax | UsageBuckets | UsageEntryBytes}); got != want || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, limited := got.Share(); limited {
		t.Error("0 is no limit")
	}
	if entries, _ := got.Memory(); entries != 500*320 {
		t.Errorf("memory %d", entries)
	}
	for name, proc := range map[string]fs.FS{"nothing": sysctlFS(nil), "no count": sysctlFS(map[string]string{"max": "1"})} {
		if u, err := ReadUsage(proc); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "usage") || u != (Usage{}) || strings.Count(err.Error(), "conntrack: ") != 1 {
			t.Errorf("%s: got %+v, %v", name, u, err)
		}
	}
	if _, ok := (Usage{Count: 1}).Load(); ok {
		t.Error("a load without buckets")
	}
}

// TestListsOfOldKernels has a kernel that lists entries, and one that knows no
// such list.
func TestListsOfOldKernels(t *testing.T) {
	flow := parse(t, lineTCP)
	c, _ := fake(t, func(r nfnltest.Request) [][]byte {
		if r.Type != 0x106 && r.Type != 0x107 {
			t.Errorf("request %#x", r.Type)
		}
		return table(flow)(r)
	})
	old, _ := fake(t, refuse(syscall.EINVAL))
	for op, list := range map[string]func(*Conn) func(func(Flow, error) bool){
		"dying":       func(c *Conn) func(func(Flow, error) bool) { return c.Dying(t.Context()) },
		"unconfirmed": func(c *Conn) func(func(Flow, error) bool) { return c.Unconfirmed(t.Context()) },
	} {
		n := 0
		for got, err := range list(c) {
			if n++; got != flow || err != nil {
				t.Errorf("%s: got %v, %v", op, got, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d entries", op, n)
		}
		for _, err := range list(old) {
			if !errors.Is(err, errors.ErrUnsupported) || !isOp(err, op) {
				t.Errorf("%s: %v", op, err)
			}
		}
	}
}
