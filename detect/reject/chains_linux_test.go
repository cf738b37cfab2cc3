package reject

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// TestLiveLongChains fills the hash chains until the kernel makes them no longer
// (row S3), and has it make more of them, as the verdict says. It must not run
// beside other tests: the chains are those of all namespaces.
func TestLiveLongChains(t *testing.T) {
	if !lab.Emulated() {
		t.Skip("nf_conntrack_buckets is the whole machine's: only changed in an emulator")
	}
	set := func(setting, value string) {
		must(t, os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_"+setting, []byte(value), 0))
	}
	for setting, value := range map[string]string{"buckets": "512", "max": "65536"} { // a page of buckets is the least
		was, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + setting)
		must(t, err)
		t.Cleanup(func() { set(setting, strings.TrimSpace(string(was))) })
		set(setting, value)
	}
	client, server := lab.Two(t)
	firewall(t, server, nft.Input, refusing(nft.Drop, 80))
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: server.NetNS()})
	must(t, err)
	t.Cleanup(func() { _ = ct.Close() })
	flow := tcpTuple(client.Addr4(), 10_000, server.Addr4(), 443)
	for range 12_000 { // 47 links in a chain, of which each may have 50 to 79
		err := ct.Create(within(t), conntrack.Flow{Original: flow, Reply: flow.Invert(), Timeout: time.Hour})
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		flow.SrcPort++
	}
	w := watchHost(t, server, Config{Repeat: 100 * time.Millisecond})
	knock := func() {
		for range 1_000 {
			sendSYN(t, client, tcpTuple(client.Addr4(), flow.SrcPort, server.Addr4(), 80))
			flow.SrcPort++
		}
	}
	knock()
	v := w.waitSilent(CauseLongChains)
	is(t, v, "S3", CauseLongChains, detect.Certain)
	fix := regexp.MustCompile("`sysctl net.netfilter.nf_conntrack_buckets=([0-9]+)`").FindStringSubmatch(strings.Join(v.Fix, " "))
	if fix == nil {
		t.Fatalf("fixes %q", v.Fix)
	}
	set("buckets", fix[1])
	tooLong := func() uint64 {
		cpus, err := ct.Stats(within(t))
		must(t, err)
		return conntrack.Total(cpus).ChainTooLong
	}
	before := tooLong()
	if knock(); tooLong() != before || before == 0 {
		t.Errorf("%d dropped, and with %s buckets %d more", before, fix[1], tooLong()-before)
	}
}

// waitSilent waits for a verdict that counters tell.
func (w *watching) waitSilent(cause Cause) Verdict {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		all := slices.Clone(w.verdicts)
		w.mu.Unlock()
		if i := slices.IndexFunc(all, func(v Verdict) bool { return v.Cause == cause }); i >= 0 {
			return all[i]
		}
	}
	w.t.Fatalf("%s: no verdict of %v", w.host.Name(), cause)
	return Verdict{}
}
