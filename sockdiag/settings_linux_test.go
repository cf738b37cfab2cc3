package sockdiag

import (
	"net/netip"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// TestReadSettingsOfHost reads a namespace's own sysctls, and sees a change.
func TestReadSettingsOfHost(t *testing.T) {
	_, h := lab.Two(t)
	for name, value := range map[string]string{
		"net.ipv4.tcp_keepalive_time": "1200", "net.ipv4.tcp_rfc1337": "1", "net.core.somaxconn": "77",
	} {
		if err := h.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ReadSettings(h.FS())
	if err != nil {
		t.Fatal(err)
	}
	if s.KeepaliveTime != 20*time.Minute || !s.RFC1337 || s.Somaxconn != 77 || s.LocalPorts[0] >= s.LocalPorts[1] ||
		s.TCPReceive[0] > s.TCPReceive[2] || s.FileMax == 0 || s.FilesPerProcess == 0 ||
		s.Has("net.ipv4.tcp_mem") != (s.TCPMemory[2] != 0) {
		t.Errorf("%+v", s)
	}
	for _, c := range sysctls {
		if !s.Has(c.name) {
			t.Logf("no %s", c.name)
		}
	}
	if s.Has("net.ipv4.tcp_tw_recycle") {
		t.Error("net.ipv4.tcp_tw_recycle is of kernels before 4.12")
	}
}

// TestReadCountersOfHost counts connections, and those that did not fit the
// accept queue.
func TestReadCountersOfHost(t *testing.T) {
	h := newScene(t)
	before, err := ReadCounters(h.FS())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t, h}
	s.pair(portOwned+1, netip.MustParseAddr("127.0.0.1"), "tcp4")
	after, err := ReadCounters(h.FS())
	if err != nil {
		t.Fatal(err)
	}
	if after.ActiveOpens != before.ActiveOpens+1 || after.PassiveOpens != before.PassiveOpens+1 ||
		after.Established != before.Established+2 || after.InSegs <= before.InSegs || after.TCPTimeWait == 0 {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	for _, name := range []string{"TcpExt.ListenOverflows", "TcpExt.TCPAbortOnMemory", "TCP.orphan", "Udp.RcvbufErrors", "TCP6.inuse"} {
		if !after.Has(name) {
			t.Errorf("no %s", name)
		}
	}
}
