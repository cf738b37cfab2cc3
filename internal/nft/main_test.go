package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

func TestMain(m *testing.M) {
	if os.Getenv(ownChild) == "" {
		lab.Main(m)
	} else if err := own(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// within bounds a test's waiting.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dial opens a Conn in a host of its own.
func dial(t *testing.T) (*nft.Conn, *lab.Host) {
	t.Helper()
	h := lab.New(t).MustHost(t, "host")
	c, err := nft.Dial(h.NetNS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, h
}

// table is one chain in one table.
func table(f nft.Family, c nft.Chain, rules ...nft.Rule) nft.Table {
	c.Name, c.Rules = "c", rules
	return nft.Table{Family: f, Name: "t", Chains: []nft.Chain{c}}
}

// input is a table with one chain at hook input.
func input(rules ...nft.Rule) nft.Table {
	return table(nft.INet, nft.Chain{Hook: nft.Input}, rules...)
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
