package snapshot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
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
