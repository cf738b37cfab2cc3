package detect

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/sockdiag"
)

// A hard limit that is as small as the soft one is raised, too.
func TestAuditHardLimit(t *testing.T) {
	for hard, want := range map[uint64]string{1000: "--nofile=65536:65536 ", 4096: "--nofile=4096:4096 ", 1 << 20: "--nofile=65536:1048576 "} {
		h := Host{Now: now, Files: []OpenFiles{openFiles(811, 5, 1000, hard)}}
		if found := find(t, Audit{}, h); len(found) != 1 || !mentions(found[0].Fix[1], want) {
			t.Errorf("%d: %v", hard, found)
		}
	}
}

// What the log tells is found where no row shows it.
func TestKernelLog(t *testing.T) {
	h := Host{Now: now, Log: []string{
		"[ 1.000000] eth0: link up",
		"[ 2.000000] TCP: request_sock_TCP: Possible SYN flooding on port 192.0.2.2:443. Sending cookies.",
		"[ 3.000000] TCP: request_sock_TCPv6: Possible SYN flooding on port [::]:443. Dropping request.",
		"[ 4.000000] TCP: too many orphaned sockets",
		"[ 5.000000] VFS: file-max limit 9000 reached",
	}}
	for _, tt := range []struct {
		d     Detector
		lines int
		fix   []string
	}{
		{SynFlood{}, 2, []string{"tcp_syncookies=1`", "net.core.somaxconn=32768`"}},
		{Leaks{}, 1, []string{"tcp_orphan_retries=1`", "tcp_fin_timeout=30`"}},
		{Descriptors{}, 1, []string{"fs.file-max=18000`"}},
		{Audit{}, 0, nil}, {Pressure{}, 0, nil},
	} {
		found := find(t, tt.d, h)
		if tt.lines == 0 && len(found) == 0 {
			continue
		}
		if len(found) != 1 || found[0].Detector != tt.d.Name() || found[0].Subject != "kernel log" || found[0].Severity != Warning ||
			len(found[0].Evidence.Log) != tt.lines || !mentions(strings.Join(found[0].Fix, "\n"), tt.fix...) {
			t.Errorf("%s: %+v", tt.d.Name(), found)
		}
		if found := find(t, tt.d, Host{Now: now, Log: h.Log[:1]}); len(found) != 0 {
			t.Errorf("%s, another line: %v", tt.d.Name(), found)
		}
	}
	var err error
	h.Counters, err = sockdiag.ReadCounters(fstest.MapFS{"net/netstat": {Data: []byte(
		"TcpExt: TCPReqQFullDrop TCPReqQFullDoCookies TCPAbortOnMemory\nTcpExt: 0 0 0\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if found := find(t, SynFlood{}, h); len(found) != 0 {
		t.Errorf("of another namespace: %v", found)
	}
	if found := find(t, Leaks{}, h); len(found) != 0 {
		t.Errorf("of another namespace: %v", found)
	}
	h.Counters.ReqQFullDoCookies = 1
	if found := find(t, SynFlood{}, h); len(found) != 1 {
		t.Errorf("of this namespace: %v", found)
	}
	h.Sockets = append(unmet(held(1, 0, addresses(65, "198.51.100.%d")...), 1), listener443())
	if found := find(t, SynFlood{}, h); len(found) != 1 || found[0].Subject != "port 443" {
		t.Errorf("with rows of a flood: %v", found)
	}
}
