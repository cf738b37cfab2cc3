package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"
)

// sysctlText gives each sysctl a value of its own, as sysctl -a writes them.
func sysctlText() string {
	var b strings.Builder
	var s Settings
	for i, c := range sysctls {
		value := fmt.Sprint(i + 100)
		if _, isBool := c.ptr(&s).(*bool); isBool {
			value = "1"
		}
		if list, ok := c.ptr(&s).([]uint64); ok {
			for j := range list[1:] {
				value += fmt.Sprint("\t", i+200+j)
			}
		}
		fmt.Fprintf(&b, "%s = %s\n", c.name, value)
	}
	return b.String()
}

// TestReadSettings reads what sysctl -a writes.
func TestReadSettings(t *testing.T) {
	proc, err := SysctlFS(strings.NewReader("# comment = 1\n; one = 2\n[section]\nnet.core.somaxconn = 1\n" + sysctlText() + "net.later=x\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadSettings(proc)
	want := Settings{
		KeepaliveTime: 100 * time.Second, KeepaliveInterval: 101 * time.Second, KeepaliveProbes: 102,
		Retries1: 103, Retries2: 104, OrphanRetries: 105, SynRetries: 106, SynAckRetries: 107,
		FinTimeout: 108 * time.Second, SynCookies: 109, MaxSynBacklog: 110, Timestamps: 111, TimeWaitReuse: 112,
		TimeWaitRecycle: true, MaxTimeWait: 114, MaxOrphans: 115, RFC1337: true, AbortOnOverflow: true,
		TCPMemory: [3]uint64{118, 218, 219}, TCPReceive: [3]uint64{119, 219, 220}, TCPSend: [3]uint64{120, 220, 221},
		LocalPorts: [2]uint64{121, 221}, ReversePathAll: 122, ReversePathDefault: 123,
		Somaxconn: 124, NetdevMaxBacklog: 125, ReceiveMax: 126, SendMax: 127, ReceiveDefault: 128, SendDefault: 129,
		FileMax: 130, FileCount: [3]uint64{131, 231, 232}, FilesPerProcess: 132,
		present: 1<<len(sysctls) - 1,
	}
	if got != want || err != nil {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for i := range reflect.TypeFor[Settings]().NumField() {
		if reflect.ValueOf(got).Field(i).IsZero() {
			t.Errorf("%s is no sysctl's", reflect.TypeFor[Settings]().Field(i).Name)
		}
	}
}

func TestReadSettingsMissing(t *testing.T) {
	proc := fstest.MapFS{"sys/net/core/somaxconn": {Data: []byte("4096\n")}}
	s, err := ReadSettings(proc)
	if err != nil || s.Somaxconn != 4096 || !s.Has("net.core.somaxconn") || s.Has("net.ipv4.tcp_tw_recycle") || s.Has("somaxconn") {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := ReadSettings(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "settings") {
		t.Errorf("nothing: %v", err)
	}
	for value, want := range map[string]string{
		"":           `net.ipv4.tcp_keepalive_time: "" are not 1 numbers`,
		"1 2":        `net.ipv4.tcp_keepalive_time: "1 2" are not 1 numbers`,
		"soon":       `net.ipv4.tcp_keepalive_time: "soon" is not a number`,
		"-1":         `net.ipv4.tcp_keepalive_time: "-1" is not a number`,
		"9223372037": `net.ipv4.tcp_keepalive_time: 9223372037 seconds are too many`,
	} {
		proc["sys/net/ipv4/tcp_keepalive_time"] = &fstest.MapFile{Data: []byte(value)}
		if s, err := ReadSettings(proc); !isOp(err, "settings") || !strings.HasSuffix(err.Error(), want) || s != (Settings{}) {
			t.Errorf("%q: %+v, %v", value, s, err)
		}
	}
	proc["sys/net/ipv4/tcp_keepalive_time"] = &fstest.MapFile{Mode: fs.ModeDir}
	if _, err := ReadSettings(proc); !isOp(err, "settings") {
		t.Errorf("a directory: %v", err)
	}
}

func isOp(err error, op string) bool {
	e, ok := errors.AsType[*OpError](err)
	return ok && e.Op == op
}

func TestSysctlFS(t *testing.T) {
	proc, err := SysctlFS(strings.NewReader(
		"net.ipv4.conf.eth0/100.rp_filter = 2\n-net/ipv4/conf/eth1.5/rp_filter=1\nkernel.core_pattern = |/bin/x a=b\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"sys/net/ipv4/conf/eth0.100/rp_filter": "2\n", "sys/net/ipv4/conf/eth1.5/rp_filter": "1\n",
		"sys/kernel/core_pattern": "|/bin/x a=b\n",
	} {
		got, err := fs.ReadFile(proc, name)
		info, ierr := fs.Stat(proc, name)
		if string(got) != want || err != nil || ierr != nil || info.Size() != int64(len(want)) || info.IsDir() ||
			!info.Mode().IsRegular() || !strings.HasSuffix(name, "/"+info.Name()) || !info.ModTime().IsZero() || info.Sys() != nil {
			t.Errorf("%s: %q, %v, %v", name, got, err, ierr)
		}
	}
	for name, want := range map[string]error{"sys/net": fs.ErrNotExist, "../sys": fs.ErrInvalid} {
		if _, err := proc.Open(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := SysctlFS(iotest.ErrReader(fs.ErrPermission)); !errors.Is(err, fs.ErrPermission) || !isOp(err, "sysctl") {
		t.Errorf("broken: %v", err)
	}
}

// TestReadCounters gives each counter a value of its own.
func TestReadCounters(t *testing.T) {
	proc := fstest.MapFS{}
	var want Counters
	pairs := make(map[string][2]string)
	for i, c := range counters {
		group, name, _ := strings.Cut(c.name, ".")
		p := pairs[group]
		pairs[group] = [2]string{p[0] + " " + name, p[1] + fmt.Sprint(" ", i+100)}
		*c.ptr(&want) = uint64(i + 100)
	}
	want.present = 1<<len(counters) - 1
	var snmp, sockstat string
	for group, p := range pairs {
		if strings.HasPrefix(group, "Tcp") || group == "Udp" {
			snmp += fmt.Sprintf("%s:%s Later\n%s:%s -1\n", group, p[0], group, p[1])
			continue
		}
		sockstat += group + ":"
		for i, name := range strings.Fields(p[0]) {
			sockstat += " " + name + " " + strings.Fields(p[1])[i]
		}
		sockstat += "\n"
	}
	proc["net/snmp"] = &fstest.MapFile{Data: []byte(snmp)}
	proc["net/sockstat"] = &fstest.MapFile{Data: []byte(sockstat)}
	got, err := ReadCounters(proc)
	if got != want || err != nil || !got.Has("TcpExt.ListenDrops") || got.Has("Tcp.Later") {
		t.Errorf("%v\n%s%s\ngot  %+v\nwant %+v", err, snmp, sockstat, got, want)
	}
	for i := range reflect.TypeFor[Counters]().NumField() {
		if reflect.ValueOf(got).Field(i).IsZero() {
			t.Errorf("%s is no counter", reflect.TypeFor[Counters]().Field(i).Name)
		}
	}
}

func TestReadCountersErrors(t *testing.T) {
	if _, err := ReadCounters(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "counters") {
		t.Errorf("nothing: %v", err)
	}
	for text, want := range map[string]string{
		"Tcp: ActiveOpens\nTcp: x\n":         `counters: Tcp.ActiveOpens: "x" is not a number`,
		"Tcp: ActiveOpens\nTcp: 1 2\n":       "counters: net/snmp: Tcp: 2 values for 1 names",
		"Tcp: ActiveOpens B C\nTcp: 1 2\n\n": "counters: net/snmp: Tcp: 2 values for 3 names",
	} {
		c, err := ReadCounters(fstest.MapFS{"net/snmp": {Data: []byte(text)}})
		if err == nil || err.Error() != "sockdiag: "+want || c != (Counters{}) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	c, err := ReadCounters(fstest.MapFS{"net/sockstat": {Data: []byte("TCP: inuse 1 orphan 2\n")}})
	if err != nil || c.TCPInUse != 1 || c.TCPOrphans != 2 || c.Has("TCP.tw") || !c.Has("TCP.orphan") {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := ReadCounters(fstest.MapFS{"net/snmp": {Mode: fs.ModeDir}}); !isOp(err, "counters") {
		t.Errorf("a directory: %v", err)
	}
}
