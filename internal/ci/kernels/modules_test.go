package main

import (
	"slices"
	"testing"
)

func TestSelectModules(t *testing.T) {
	const dep = `kernel/drivers/net/veth.ko:
kernel/drivers/net/tun.ko:
kernel/lib/libcrc32c.ko:
kernel/net/netfilter/nf_tables.ko: kernel/net/netfilter/nfnetlink.ko kernel/lib/libcrc32c.ko
kernel/net/netfilter/nfnetlink.ko:
kernel/net/ipv4/inet-diag.ko.zst: kernel/net/core/sock_diag.ko.zst
kernel/net/core/sock_diag.ko.zst:
`
	const builtin = "kernel/net/unix/unix.ko\nkernel/net/unix/unix_diag.ko\n"
	got := selectModules(dep, builtin, []string{"veth", "inet_diag", "unix_diag", "nft_counter"}, []string{"kernel/net/netfilter/"})
	for _, tt := range []struct {
		what      string
		got, want []string
	}{
		{"load", got.load, []string{"veth", "inet_diag"}},
		{"lacking", got.lacking, []string{"nft_counter"}},
		{"files", got.files, []string{
			"kernel/drivers/net/veth.ko",
			"kernel/lib/libcrc32c.ko",
			"kernel/net/core/sock_diag.ko.zst",
			"kernel/net/ipv4/inet-diag.ko.zst",
			"kernel/net/netfilter/nf_tables.ko",
			"kernel/net/netfilter/nfnetlink.ko",
		}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s = %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

func TestWantedModules(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range wantedModules {
		if seen[m] || moduleName(m) != m {
			t.Errorf("module %q: twice, or not a module name", m)
		}
		seen[m] = true
	}
}
