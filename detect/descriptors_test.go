package detect

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/sockdiag"
)

func openFiles(pid int, used, soft, hard uint64) OpenFiles {
	f := OpenFiles{Descriptors: sockdiag.Descriptors{Used: used, SoftLimit: soft, HardLimit: hard}}
	if pid != 0 {
		f.Process = sockdiag.Process{PID: pid, Command: "sip", Started: time.Hour}
	}
	return f
}

func TestDescriptorsUsed(t *testing.T) {
	const all = math.MaxUint64
	for _, tt := range []struct {
		files OpenFiles
		want  Severity // 0 is none
		words []string
	}{
		{openFiles(5, 10, 1024, 4096), 0, nil},
		{openFiles(5, 819, 1024, 4096), 0, nil},
		{openFiles(5, 820, 1024, 4096), Warning, []string{"process 5 (sip)", "820 of 1024", "(80%)", "prlimit --pid 5 --nofile=4096:`"}},
		{openFiles(5, 972, 1024, all), Warning, []string{"--nofile=unlimited:`"}},
		{openFiles(5, 973, 1024, 1024), Critical, []string{"--nofile=2048:2048`", "LimitNOFILE=2048"}},
		{openFiles(5, 1024, 1024, 1024), Critical, []string{"EMFILE"}},
		{openFiles(5, 1500, 1024, 1024), Critical, []string{"EMFILE"}},
		{openFiles(5, 1500, all, all), 0, nil},
		{openFiles(5, 0, 0, 0), 0, nil},
		{openFiles(0, 1000, math.MaxInt64, math.MaxInt64), 0, nil},
		{openFiles(0, 90000, 100000, 100000), Warning, []string{"all processes", "fs.file-max=200000"}},
		{openFiles(0, 100000, 100000, 100000), Critical, []string{"ENFILE"}},
	} {
		found := examine(t, Descriptors{}, Host{Now: now, Files: []OpenFiles{openFiles(1, 3, 1024, 1024), tt.files}})
		if tt.want == 0 && len(found) == 0 {
			continue
		}
		if len(found) != 1 || found[0].Severity != tt.want || found[0].Confidence != Certain || !mentions(found[0].String(), tt.words...) {
			t.Errorf("%+v: %v", tt.files, found)
		}
	}
}

// S5: 200 connections in half a minute.
func TestDescriptorsRate(t *testing.T) {
	for _, tt := range []struct {
		name        string
		before, now uint64
		change      func(*Host)
		want        string // of the cause; empty is no finding
	}{
		{"no earlier look", 400, 684, func(h *Host) { h.Earlier.Files = nil }, ""},
		{"grows", 484, 684, nil, "6.7 more a second: none is left in 51s"},
		{"grows slowly", 680, 684, nil, ""},
		{"slowly, and late", 831, 832, nil, "2.0 more a minute: none is left in 1h36m"},
		{"grows from little", 11, 211, nil, ""},
		{"shrinks", 700, 684, nil, ""},
		{"another process of the number", 484, 684, func(h *Host) { h.Earlier.Files[0].Process.Started++ }, ""},
		{"the clock went back", 484, 684, func(h *Host) { h.Earlier.At = h.Now.Add(time.Second) }, ""},
		{"the same instant", 484, 684, func(h *Host) { h.Earlier.At = h.Now }, ""},
		{"when is not known", 484, 684, func(h *Host) { h.Earlier.At = time.Time{} }, ""},
		{"used up", 1000, 1024, nil, "EMFILE"},
	} {
		h := Host{
			Now: now, Files: []OpenFiles{openFiles(5, tt.now, 1024, 1024)},
			Earlier: Earlier{At: now.Add(-30 * time.Second), Files: []OpenFiles{openFiles(5, tt.before, 1024, 1024)}},
		}
		if tt.change != nil {
			tt.change(&h)
		}
		found := examine(t, Descriptors{}, h)
		if len(found) == 0 && tt.want == "" {
			continue
		}
		if len(found) != 1 || tt.want == "" || !mentions(found[0].Cause, tt.want) {
			t.Errorf("%s: %v", tt.name, found)
			continue
		}
		if certain := tt.now >= 820; certain != (found[0].Confidence == Certain) {
			t.Errorf("%s: %v", tt.name, found)
		}
	}
}

// Who eats them up: one source, and not the database with its 43, nor what the
// process itself connected to.
func TestDescriptorsHolders(t *testing.T) {
	rows := slices.Concat(
		[]sockdiag.Socket{listener(sockdiag.IPv4, "0.0.0.0:443", 0, 128)},
		pileOf(684, sockdiag.Established, func(_ int, s *sockdiag.Socket) {
			s.Remote = netip.AddrPortFrom(netip.MustParseAddr(client), s.Remote.Port())
		}),
		pileOf(43, sockdiag.Established, func(_ int, s *sockdiag.Socket) {
			s.Remote = netip.AddrPortFrom(netip.MustParseAddr(public), s.Remote.Port())
		}),
		pileOf(100, sockdiag.Established, toBackend),
		pileOf(100, sockdiag.Established), // of another process
	)
	holders := make(map[uint32][]sockdiag.Holder)
	for i := range rows {
		pid := 5
		if i >= len(rows)-100 {
			pid = 6
		}
		rows[i].Inode = uint32(i + 1)
		holders[rows[i].Inode] = []sockdiag.Holder{{Process: sockdiag.Process{PID: pid}, FD: i}}
	}
	h := Host{Now: now, Sockets: rows, Holders: holders, Files: []OpenFiles{openFiles(5, 850, 1024, 1024), openFiles(6, 110, 1024, 1024)}}
	found := examine(t, Descriptors{}, h)
	if len(found) != 1 {
		t.Fatalf("got %v", found)
	}
	f := found[0]
	if !slices.Equal(f.Sources, []netip.Prefix{netip.MustParsePrefix(client + "/32")}) || len(f.Evidence.Sockets) != evidenceOf ||
		!mentions(f.String(), "828 are sockets", "827 ESTABLISHED", "684 of "+client, "ss -K dst "+client+"`") || len(f.Evidence.Missing) != 1 {
		t.Errorf("got %+v", f)
	}
}

// Listeners have no source.
func TestDescriptorsListeners(t *testing.T) {
	h := Host{Now: now, Files: []OpenFiles{openFiles(5, 1000, 1024, 1024)}, Holders: map[uint32][]sockdiag.Holder{7: {{Process: sockdiag.Process{PID: 5}}}}}
	for range 5 {
		h.Sockets = append(h.Sockets, listener(sockdiag.IPv4, "0.0.0.0:443", 0, 128))
	}
	found := examine(t, Descriptors{PerSource: 2}, h)
	if len(found) != 1 || found[0].Sources != nil || !mentions(found[0].Cause, "5 are sockets") {
		t.Errorf("got %+v", found)
	}
}

// Without a process in trouble no row is looked at.
func TestDescriptorsQuiet(t *testing.T) {
	h := Host{Files: []OpenFiles{openFiles(5, 10, 1024, 1024)}, Holders: map[uint32][]sockdiag.Holder{1: {{}}}}
	if look := (Descriptors{}).Look(&h); look.Socket != nil || look.Flow != nil {
		t.Error("rows are looked at")
	}
}
