package main

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// wantedModules are loaded before the first test, by name, because a module is
// loaded on demand only when what asks for it has the right to.
var wantedModules = []string{
	"nf_conntrack", "nf_conntrack_netlink", "nfnetlink_log", "nfnetlink_cttimeout", "nf_log_syslog",
	"nf_conntrack_ftp", "nf_conntrack_irc", "nf_nat_ftp", "xt_CT",
	"nf_tables", "nft_ct", "nft_reject", "nft_reject_inet", "nft_log", "nft_limit", "nft_connlimit", "nft_chain_nat", "nft_compat",
	"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "unix_diag",
	"veth",
	"ip_set", "ip_set_hash_ip", "ip_set_hash_net", "xt_set",
}

// onDemandFiles are the beginnings of the files that the kernel may load on
// demand for links, rules, sets, sockets and queueing disciplines.
var onDemandFiles = []string{
	"kernel/drivers/net/dummy.ko", "kernel/net/bridge/", "kernel/net/ipv4/", "kernel/net/ipv6/",
	"kernel/net/netfilter/", "kernel/net/netlink/", "kernel/net/sched/", "kernel/net/unix/",
}

// A moduleSet is what the initramfs of one kernel takes from its modules.
type moduleSet struct {
	load    []string // modules to load, in order; those built in are not among them
	lacking []string // wanted modules that the kernel does not have
	files   []string // paths below lib/modules/<release>, dependencies included
}

// readModules selects the modules of an unpacked kernel.
func readModules(k kernel) (moduleSet, error) {
	dep, err := os.ReadFile(filepath.Join(k.modules(), "modules.dep"))
	if err != nil {
		return moduleSet{}, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.modules(), "modules.builtin"))
	if err != nil {
		return moduleSet{}, err
	}
	return selectModules(string(dep), string(builtin), wantedModules, onDemandFiles), nil
}

// selectModules reads modules.dep, lines of "file: dependency…" that name
// every indirect dependency too, and modules.builtin, one file per line.
func selectModules(dep, builtin string, wanted, onDemand []string) moduleSet {
	var set moduleSet
	take := map[string]bool{}
	byName := map[string][]string{} // file and its dependencies
	for line := range strings.Lines(dep) {
		file, needs, found := strings.Cut(strings.TrimSpace(line), ":")
		if !found {
			continue
		}
		files := append([]string{file}, strings.Fields(needs)...)
		byName[moduleName(file)] = files
		if slices.ContainsFunc(onDemand, func(begin string) bool { return strings.HasPrefix(file, begin) }) {
			addAll(take, files)
		}
	}
	inKernel := map[string]bool{}
	for line := range strings.Lines(builtin) {
		inKernel[moduleName(strings.TrimSpace(line))] = true
	}
	for _, name := range wanted {
		switch files, ok := byName[name]; {
		case ok:
			addAll(take, files)
			set.load = append(set.load, name)
		case !inKernel[name]:
			set.lacking = append(set.lacking, name)
		}
	}
	set.files = slices.Sorted(maps.Keys(take))
	return set
}

func addAll(set map[string]bool, files []string) {
	for _, f := range files {
		set[f] = true
	}
}

// moduleName is the name the kernel gives to a module file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
