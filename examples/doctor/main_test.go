package main

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestDoctor looks at a quiet host, and at one whose application does not
// accept.
func TestDoctor(t *testing.T) {
	h := lab.New(t).MustHost(t, "host")
	diagnose := func() (found []detect.Finding) {
		t.Helper()
		err := h.Do(func() error {
			seen, err := look(t.Context())
			if err != nil {
				return err
			}
			if !seen.flows {
				t.Error(seen.blind)
			}
			for _, d := range detectors {
				found = append(found, d.find(seen.host)...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := diagnose(); len(found) > 0 {
		t.Errorf("a quiet host: %v", found)
	}
	if err := h.SetSysctl("net.core.somaxconn", "1"); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	l, err := h.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for range 2 {
		c, err := h.Dial(t.Context(), "tcp", netip.AddrPort{}, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	isQueue := func(f detect.Finding) bool { return f.Detector == "AcceptQueue" }
	var found []detect.Finding
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if found = diagnose(); slices.ContainsFunc(found, isQueue) {
			break
		}
	}
	if i := slices.IndexFunc(found, isQueue); i < 0 || found[i].Count != 2 || len(found[i].Fix) == 0 || len(evidence(found[i])) == 0 {
		t.Errorf("%+v", found)
	}
	for _, f := range found {
		if err := tell(f, true); err != nil {
			t.Error(err)
		}
	}
}
