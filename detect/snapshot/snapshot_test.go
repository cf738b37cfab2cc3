package snapshot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
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

// diagnose returns the findings above Info as "severity detector: subject".
func diagnose(t *testing.T, s *Snapshot) []string {
	t.Helper()
	sees, err := s.Sees()
	if err != nil {
		t.Fatal(err)
	}
	detectors, _ := detect.Seeing(sees, detect.All()...)
	found, err := detect.Scan(s.Host, s.Sockets, s.Flows, detectors...)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range found {
		if f.Severity > detect.Info {
			lines = append(lines, fmt.Sprintf("%v %s: %s", f.Severity, f.Detector, f.Subject))
		}
	}
	return lines
}

// Each file is read as what it holds.
func TestOpenText(t *testing.T) {
	s, err := Open(os.DirFS("testdata/ghost"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]Kind{"counters": Stats, "notes.txt": Unknown, "settings.txt": Sysctls, "sockets": NetstatSockets, "table": TextFlows}
	for _, f := range s.Files {
		if f.Kind != kinds[f.Name] || (f.Unused != "") != (f.Kind == Unknown) {
			t.Errorf("%+v, want %q", f, kinds[f.Name])
		}
	}
	if len(s.Files) != len(kinds) || len(s.Skipped()) != 0 {
		t.Errorf("%v, left out: %v", s.Files, s.Skipped())
	}
	h := s.Host
	if h.Kernel != "3.10.0-1160.el7.x86_64" || h.Usage.Count != 3 || len(h.Stats) != 1 || h.Stats[0].Invalid != 7 || h.Now.IsZero() {
		t.Errorf("%+v", h)
	}
}

const (
	netstatLine = "tcp        0      0 10.1.32.70:9102         10.1.41.192:51522       CLOSE_WAIT  811/x\n"
	ssLine      = "ESTAB 0      0      10.1.32.70:22 10.1.41.192:50000\n"
	procLines   = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 20 1 0000000000000000 100 0 0 10 0\n"
	flowLine = "ipv6     10 tcp      6 299 ESTABLISHED src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 src=2001:db8::2 dst=2001:db8::1 sport=2 dport=1 [ASSURED] mark=0 use=1\n"
)

func TestKinds(t *testing.T) {
	for text, want := range map[string]Kind{
		netstatLine: NetstatSockets,
		"Active Internet connections (w/o servers)\n": NetstatSockets,
		ssLine: SSSockets,
		"State  Recv-Q Send-Q Local Address:Port\n":   SSSockets,
		"Netid State  Recv-Q Send-Q Local\n":          SSSockets,
		"tcp   LISTEN 0      128    [::]:22 [::]:*\n": SSSockets,
		procLines: ProcSockets,
		flowLine:  TextFlows,
		"\n# mine\nnet.ipv4.tcp_syncookies = 1\n":        Sysctls,
		"-net/ipv4/tcp_syncookies=1\n":                   Sysctls,
		"fs.file-max=1\n":                                Sysctls,
		"app.port = 1\n":                                 Unknown,
		"cpu=0 found=0 invalid=1\n":                      Unknown,
		"cpu=0   \tfound=0 invalid=1 insert=0 drop=0 \n": ToolStats,
		"cpu=0 \tfound=0 insert_failed=0\n":              Unknown,
		"Ip: Forwarding DefaultTTL\n":                    SNMP,
		"TcpExt: SyncookiesSent\n":                       Netstat,
		"sockets: used 5\n":                              Sockstat,
		"TCP6: inuse 5\n":                                Sockstat6,
		"1: lo: <LOOPBACK,UP> mtu 65536\n":               Addresses,
		"2: eth0    inet 10.1.2.3/24 scope global\n":     Addresses,
		"[    0.000000] Linux version 6.1\n":             Log,
		"[Mon Dec  2 20:29:12 2024] eth0: link up\n":     Log,
		"<6>[   12.345678] eth0: link up\n":              Log,
		"Dec 22 20:29:12 www kernel: [4660212.104111] x": Log,
		"ip_conntrack: table full, dropping packet.\n":   Log,
		"[section]\n":                                    Unknown,
		"slabinfo - version: 2.1\n":                      Slabs,
		"entries  searched found new invalid ignore \n":  Stats,
		"": Unknown, "\x00\x01\xff": Unknown, "\n\n": Unknown,
		strings.Repeat("x", 3*peekSize): Unknown,
	} {
		if got := kindOf([]byte(text)); got != want {
			t.Errorf("%.60q is %s, want %s", text, got, want)
		}
		dir := fstest.MapFS{"a": {Data: compressed(text)}}
		f, got, err := open(dir, "a")
		if err != nil || got != want {
			t.Errorf("compressed, %.60q is %s, %v, want %s", text, got, err, want)
			continue
		}
		if b, err := io.ReadAll(f); string(b) != text || err != nil || f.Close() != nil {
			t.Errorf("compressed: %.60q, %v", b, err)
		}
	}
}

func compressed(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err = errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Nothing is read twice, and nothing is left out without a word.
func TestOpenMixed(t *testing.T) {
	s, err := Open(fstest.MapFS{
		"a.gz":       {Data: compressed(ssLine + "ESTAB 0 zero\n" + ssLine), ModTime: time.Unix(100, 0)},
		"b":          {Data: []byte(netstatLine)},
		"broken.gz":  {Data: []byte("\x1f\x8bnot")},
		"c":          {Data: []byte(flowLine + "tcp 6 soon ESTABLISHED\n"), ModTime: time.Unix(200, 0)},
		"d/e":        {Data: []byte(flowLine)},
		"old.conf":   {Data: []byte("net.core.somaxconn = 1\nnet.ipv4.ip_conntrack_max = 9\n")},
		"sysctl":     {Data: []byte("net.core.somaxconn = 4096\nkernel.osrelease = 6.1.0\n" + strings.Repeat("# long\n", 20))},
		"unreadable": {Mode: fs.ModeSymlink, Data: []byte("nowhere")},
	})
	if err != nil {
		t.Fatal(err)
	}
	unused := make(map[string]bool)
	for _, f := range s.Files {
		unused[f.Name] = f.Unused != ""
	}
	want := map[string]bool{"a.gz": false, "b": true, "broken.gz": true, "c": false, "d": true, "old.conf": false, "sysctl": false, "unreadable": true}
	if !reflect.DeepEqual(unused, want) {
		t.Errorf("%+v", s.Files)
	}
	if n, m := count(t, s.Sockets), count(t, s.Flows); n != 2 || m != 1 {
		t.Errorf("%d sockets, %d flows", n, m)
	}
	if k := s.Skipped(); len(k) != 2 || k[0].File != "a.gz" || k[0].Lines != 1 || k[1].First == nil {
		t.Errorf("left out: %v", k)
	}
	if h := s.Host; h.Sysctls.Somaxconn != 4096 || len(h.Old) != 1 || h.Kernel != "6.1.0" || !h.Now.Equal(time.Unix(200, 0)) {
		t.Errorf("%+v", h)
	}
}

func count[T any](t *testing.T, rows iter.Seq2[T, error]) int {
	t.Helper()
	n := 0
	for _, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestOpenNothing(t *testing.T) {
	for name, dir := range map[string]fs.FS{
		"empty": fstest.MapFS{}, "unknown": fstest.MapFS{"a": {Data: []byte("what\n")}}, "no directory": os.DirFS("testdata/none"),
	} {
		if s, err := Open(dir); !errors.Is(err, fs.ErrNotExist) || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	s, err := Open(fstest.MapFS{"a": {Data: []byte(flowLine)}})
	if err != nil || s.Sockets != nil || s.Flows == nil {
		t.Errorf("%+v, %v", s, err)
	}
	if sees, err := s.Sees(); sees != detect.NeedFlows || err != nil {
		t.Errorf("sees %v, %v", sees, err)
	}
	if _, err := Open(fstest.MapFS{"a": {Data: []byte("net.core.somaxconn = many\n")}}); err == nil {
		t.Error("a setting that is no number")
	}
	if _, err := Open(fstest.MapFS{"a": {Data: []byte(`{"format":"connsleuth-host","version":9}`)}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a later version: %v", err)
	}
}

// seq is a sequence of rows that ends with an error, if there is one.
func seq[T any](err error, rows ...T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

func TestRecordErrors(t *testing.T) {
	proc := fstest.MapFS{"sys/net/core/somaxconn": {Data: []byte("4096\n")}}
	dir := filepath.Join(t.TempDir(), "new")
	if err := Record(dir, detect.Host{}, proc, seq[sockdiag.Socket](nil), nil); err != nil {
		t.Fatal(err)
	}
	if err := Record(dir, detect.Host{}, proc, nil, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
	broken := errors.New("broken")
	dir = filepath.Join(t.TempDir(), "partly")
	if err := Record(dir, detect.Host{}, proc, nil, seq[conntrack.Flow](broken)); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
	s, err := Open(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if sees, err := s.Sees(); sees != detect.NeedSettings || err == nil {
		t.Errorf("partly: sees %v, %v", sees, err)
	}
	if _, err := detect.Scan(s.Host, s.Sockets, s.Flows, detect.Audit{}); err == nil || !strings.Contains(err.Error(), "recorded in part") {
		t.Errorf("partly: %v", err)
	}
	if err := Record("/dev/null/x", detect.Host{}, proc, nil, nil); err == nil {
		t.Error("below a file")
	}
}

func TestConfigured(t *testing.T) {
	got := Configured(fstest.MapFS{
		"etc/sysctl.d/10-tw.conf": {Data: []byte("net.ipv4.tcp_tw_recycle=1\n")},
		"etc/sysctl.conf":         {Data: []byte("# net.ipv4.ip_conntrack_max = 1\nnet.core.somaxconn = 1\n")},
		"etc/sysctl.d/notes":      {Data: []byte("net.ipv4.ip_conntrack_max = 1\n")},
	})
	if want := []detect.Setting{{Name: "net.ipv4.tcp_tw_recycle", Value: "1"}}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
