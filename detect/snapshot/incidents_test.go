package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// What people saved in the incidents gives what they found by hand.
func TestIncidents(t *testing.T) {
	wants, err := filepath.Glob("testdata/*.want")
	if err != nil || len(wants) != 8 {
		t.Fatal(wants, err)
	}
	for _, want := range wants {
		dir := strings.TrimSuffix(want, ".want")
		t.Run(filepath.Base(dir), func(t *testing.T) {
			s, err := Open(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // rows can be read again
				if got := diagnose(t, s); !slices.Equal(got, strings.Split(strings.TrimSpace(string(text)), "\n")) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), text)
				}
			}
			if k := s.Skipped(); len(k) > 0 {
				t.Errorf("left out: %v", k)
			}
			for _, f := range s.Files {
				if f.Unused != "" && f.Name != "notes.txt" {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// The host is known from the same files.
func TestIncidentHost(t *testing.T) {
	host := func(name string) detect.Host {
		s, err := Open(os.DirFS("testdata/" + name))
		if err != nil {
			t.Fatal(err)
		}
		return s.Host
	}
	if h := host("forgotten"); len(h.Addrs) != 6 || h.Addrs[3].String() != "10.1.41.192" || len(h.Holders) != 3 || h.Counters.PassiveOpens == 0 ||
		!h.Counters.Has("TcpExt.ListenOverflows") || len(h.Stats) == 0 || len(h.Files) != 1 || h.Files[0].SoftLimit == 0 {
		t.Errorf("forgotten: %+v", h)
	}
	if h := host("timewait"); len(h.Log) != 2 || !strings.HasSuffix(h.Log[1], "104988] nf_conntrack: table full, dropping packet") {
		t.Errorf("timewait: %q", h.Log)
	}
	if h := host("idle"); len(h.Addrs) != 6 {
		t.Errorf("idle: %v", h.Addrs)
	}
	h := host("old")
	if h.Settings.Max != 8 || h.Settings.Count != 7 || h.Settings.Timeouts.TCPEstablished.Hours() != 120 || len(h.Old) != 8 {
		t.Errorf("old: %+v", h)
	}
}

// Of what one can be read, the last that was written is; the others are named.
func TestLast(t *testing.T) {
	const head = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n"
	row := func(invalid string) []byte {
		return []byte(head + "00000003  00000000 00000000 00000000 " + invalid + strings.Repeat(" 00000000", 12) + "\n")
	}
	tool := []byte("cpu=0   \tfound=0 invalid=9 drop=0 \n\ncpu=3   \tfound=0 invalid=1 drop=0 \n")
	dir := fstest.MapFS{
		"a": {Data: row("00000001"), ModTime: time.Unix(300, 0)},
		"b": {Data: row("00000002"), ModTime: time.Unix(400, 0)},
		"c": {Data: row("00000003"), ModTime: time.Unix(200, 0)},
		"d": {Data: tool},
	}
	read := func() (invalid uint64, unused string) {
		t.Helper()
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Files {
			if f.Unused != "" {
				unused += f.Name
			}
		}
		return conntrack.Total(s.Host.Stats).Invalid, unused
	}
	if n, unused := read(); n != 2 || unused != "acd" {
		t.Errorf("%d, not %s", n, unused)
	}
	dir = fstest.MapFS{"d": {Data: tool, ModTime: time.Unix(9, 0)}, "e": {Data: []byte("cpu=0 invalid=5 drop=0\n"), ModTime: time.Unix(8, 0)}}
	if n, unused := read(); n != 10 || unused != "e" {
		t.Errorf("%d, not %s", n, unused)
	}
	dir["d"].Data = []byte("cpu=0 invalid=9 drop=0\ncpu=1 invalid=many drop=0\n")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "d: ") {
		t.Errorf("no number: %v", err)
	}
}

func TestText(t *testing.T) {
	log := strings.Repeat("[ 1.000000] eth0: link up\n[ 1.000001] TCP: out of memory -- consider tuning tcp_mem\n", maxLog+1) +
		"[ 9.000000] nf_conntrack: table full, dropping packet\n"
	s, err := Open(fstest.MapFS{
		"addr":  {Data: []byte("1: lo: <LOOPBACK,UP> mtu 65536\n    link/loopback\n    inet 127.0.0.1/8 scope host lo\n    inet6 fe80::1/64 scope link\n    inet 10.8.0.1 peer 10.8.0.2/32 scope global tun0\n")},
		"dmesg": {Data: []byte(log)},
		"stat": {Data: []byte("tcp        0      0 10.1.32.70:443     10.9.0.1:5555   CLOSE_WAIT  1000  4711  811/app: worker\n" +
			"tcp        0      0 10.1.32.70:443     10.9.0.1:5556   TIME_WAIT   0     0     -\n" +
			"tcp        0      0 10.1.32.70:443     10.9.0.1:5557   ESTABLISHED 812/other\n")},
		"sysctl": {Data: []byte("fs.file-nr = 1344\t44\t9000\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := s.Host
	if got := fmt.Sprint(h.Addrs); got != "[127.0.0.1 fe80::1 10.8.0.1]" {
		t.Error(got)
	}
	if len(h.Log) != maxLog || !strings.Contains(h.Log[maxLog-1], "table full") || !strings.Contains(h.Log[0], "TCP: out of memory") {
		t.Errorf("%d lines, %q", len(h.Log), h.Log[len(h.Log)-1])
	}
	if o := h.Holders[4711]; len(h.Holders) != 1 || len(o) != 1 || o[0].Process.PID != 811 {
		t.Errorf("%v", h.Holders)
	}
	if f := h.Files; len(f) != 1 || f[0].Process != (sockdiag.Process{}) || f[0].Descriptors != (sockdiag.Descriptors{Used: 1300, SoftLimit: 9000, HardLimit: 9000}) {
		t.Errorf("%+v", f)
	}
	if sees, err := s.Sees(); sees != detect.NeedSockets|detect.NeedSettings|detect.NeedFiles || err != nil {
		t.Errorf("sees %v, %v", sees, err)
	}
}

// An old name counts where there is no new one: later kernels do not have it.
func TestOldNames(t *testing.T) {
	for text, want := range map[string]uint64{
		"net.ipv4.netfilter.ip_conntrack_max = 9\n":                                         9,
		"net.ipv4.ip_conntrack_max = 8\n":                                                   8,
		"net.ipv4.ip_conntrack_max = 8\nnet.netfilter.nf_conntrack_tcp_loose = 1\n":         0,
		"net.ipv4.netfilter.ip_conntrack_max = 9\nnet.netfilter.nf_conntrack_max = 65536\n": 65536,
	} {
		s, err := Open(fstest.MapFS{"a": {Data: []byte(text)}})
		if err != nil || s.Host.Settings.Max != want || len(s.Host.Old) != 1 {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

// An earlier reading and the log are kept.
func TestRecordEarlier(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	proc := fstest.MapFS{"net/netstat": {Data: []byte("TcpExt: ListenOverflows\nTcpExt: 7\n")}}
	before, err := System(proc)
	if err != nil {
		t.Fatal(err)
	}
	before.Now = at
	before.Usage = conntrack.Usage{Count: 1, Max: 2, Fields: conntrack.UsageMax}
	before.Stats = []conntrack.Stats{{CPU: 1, Fields: conntrack.StatDrop, Drop: 3}}
	before.Files = []detect.OpenFiles{{Process: sockdiag.Process{PID: 17}, Descriptors: sockdiag.Descriptors{Used: 5, SoftLimit: 9}}}
	proc["net/netstat"].Data = []byte("TcpExt: ListenOverflows\nTcpExt: 9\n")
	h, err := System(proc)
	if err != nil {
		t.Fatal(err)
	}
	h.Now, h.Earlier, h.Log = at.Add(time.Minute), before.Counted(), []string{"[ 1.000000] nf_conntrack: table full, dropping packet"}
	dir := filepath.Join(t.TempDir(), "incident")
	if err := Record(dir, h, proc, nil, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	live, replayed := detect.Find(h, detect.AcceptQueue{}, detect.Pressure{}), detect.Find(s.Host, detect.AcceptQueue{}, detect.Pressure{})
	if !reflect.DeepEqual(live, replayed) || len(live) != 2 || live[0].Count != 2 && live[1].Count != 2 {
		t.Errorf("live %v\nreplayed %v", live, replayed)
	}
	e := s.Host.Earlier
	if !reflect.DeepEqual(e, h.Earlier) || !slices.Equal(s.Host.Log, h.Log) {
		t.Errorf("recorded %+v\nreplayed %+v", h.Earlier, e)
	}
	if c := e.Counters; !c.Has("TcpExt.ListenOverflows") || c.Has("TcpExt.ListenDrops") {
		t.Errorf("which counters there were: %+v", c)
	}
}

// A record of the first version does not tell which counters there were at the
// earlier reading; one of a later version than is known is not read.
func TestRecordVersions(t *testing.T) {
	const record = `{"format":"connsleuth-host","version":%d,"now":"2026-05-04T12:01:00Z","kernel":"6.12",` +
		`"earlier":{"At":"2026-05-04T12:00:00Z","Usage":{"Count":1},"Counters":{"ActiveOpens":0,"ListenOverflows":7}}}`
	open := func(version int) (detect.Host, error) {
		s, err := Open(fstest.MapFS{"host.json": {Data: fmt.Appendf(nil, record, version)}})
		if err != nil {
			return detect.Host{}, err
		}
		return s.Host, nil
	}
	h, err := open(1)
	if err != nil || h.Earlier.Counters.ListenOverflows != 7 || h.Earlier.Usage.Count != 1 || h.Earlier.Counters.Has("TcpExt.ListenOverflows") {
		t.Errorf("%+v, %v", h.Earlier, err)
	}
	for _, version := range []int{0, hostVersion + 1} {
		if _, err := open(version); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
