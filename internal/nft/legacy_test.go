package nft_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// locked is a file system whose files may not be read.
type locked struct{}

func (locked) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestLegacyTables(t *testing.T) {
	got, err := nft.LegacyTables(fstest.MapFS{
		"net/ip_tables_names":  {Data: []byte("raw\nfilter\n")},
		"net/ip6_tables_names": {Data: []byte("filter\n")},
	})
	if want := []string{"ip raw", "ip filter", "ip6 filter"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := nft.LegacyTables(fstest.MapFS{}); err != nil || got != nil {
		t.Errorf("without files: %q, %v", got, err)
	}
	if got, err := nft.LegacyTables(locked{}); !errors.Is(err, fs.ErrPermission) || got != nil {
		t.Errorf("without permission: %q, %v", got, err)
	}
}

// TestLegacyTablesTool has iptables-legacy make a table.
func TestLegacyTablesTool(t *testing.T) {
	t.Parallel()
	lab.Tool(t, "iptables-legacy")
	h := lab.New(t).MustHost(t, "host")
	if got, err := nft.LegacyTables(h.FS()); err != nil || got != nil {
		t.Errorf("before: %q, %v", got, err)
	}
	if _, err := h.Exec(within(t), "iptables-legacy", "-w", "10", "-A", "INPUT", "-j", "ACCEPT"); err != nil {
		t.Skipf("no legacy tables here: %v", err)
	}
	if got, err := nft.LegacyTables(h.FS()); err != nil || !slices.Equal(got, []string{"ip filter"}) {
		t.Errorf("after: %q, %v, want ip filter", got, err)
	}
}
