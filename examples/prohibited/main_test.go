package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/internal/program"
)

func TestMain(m *testing.M) { program.Main(m, main) }

const patience = 40 * time.Second

// hostState is all that the program could leave behind.
func hostState(t *testing.T, h *lab.Host) string {
	t.Helper()
	rules, err := h.Exec(t.Context(), "nft", "-s", "list", "ruleset")
	if errors.Is(err, exec.ErrNotFound) {
		rules, err = tables(t, h)
	}
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(string(rules))
	for _, name := range []string{
		"sys/net/netfilter/nf_conntrack_log_invalid", "sys/net/netfilter/nf_log/2", "sys/net/netfilter/nf_log/10",
		"net/netfilter/nf_log", "net/netfilter/nfnetlink_log",
	} {
		b, err := fs.ReadFile(h.FS(), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		text.WriteString(name + ": " + string(b))
	}
	return text.String()
}

// tables lists the tables without nft(8).
func tables(t *testing.T, h *lab.Host) (text []byte, err error) {
	t.Helper()
	conn, err := nft.Dial(h.NetNS())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // only asked
	set, err := conn.Ruleset(t.Context())
	if err == nil {
		for _, table := range set.Tables {
			text = fmt.Appendf(text, "table %v %s {\n", table.Family, table.Name)
		}
	}
	return text, err
}

func waitState(t *testing.T, h *lab.Host, want func(string) bool) {
	t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = hostState(t, h); want(got) {
			return
		}
	}
	t.Errorf("got\n%s", got)
}

// refusing is a host that refuses connections to port 1000, and one that tries.
func refusing(t *testing.T) (client, server *lab.Host) {
	t.Helper()
	client, server = lab.Two(t)
	err := server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{
			{CTState: nft.New, Proto: nft.TCP, DstPort: 1000, Verdict: nft.RejectAdminProhibited},
			{CTState: nft.New, Proto: nft.TCP, DstPort: 1001, Log: &nft.Log{Group: 50, Prefix: "new "}, Verdict: nft.RejectAdminProhibited},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func try(t *testing.T, client, server *lab.Host, from, to uint16) {
	t.Helper()
	c, err := client.Dial(t.Context(), "tcp", netip.AddrPortFrom(client.Addr4(), from), netip.AddrPortFrom(server.Addr4(), to), nil)
	if err == nil {
		_ = c.Close()
		t.Fatal("connected")
	}
}

// TestProhibited runs the program over refused connections, ends it in all ways
// there are, kill -9 among them, and looks for what it leaves behind.
func TestProhibited(t *testing.T) {
	t.Parallel()
	client, server := refusing(t)
	before := hostState(t, server)
	unchanged := func(now string) bool { return now == before }

	p := program.Start(t, server)
	p.Says("watching")
	try(t, client, server, 4000, 1000)
	p.Says("no-service, certain: ")
	p.Says(" of inet filter input: tcp dport 1000 ")
	p.Stop(os.Interrupt)
	if out, _ := p.Text(); !strings.Contains(out, ":4000 > ") {
		t.Errorf("got %s", out)
	}
	waitState(t, server, unchanged)

	p = program.Start(t, server)
	p.Says("watching")
	p.Kill()
	waitState(t, server, func(now string) bool {
		return strings.Contains(now, "connsleuth-restore") && !strings.Contains(now, "table inet connsleuth {")
	})

	p = program.Start(t, server, "-json", "-top=3")
	p.Says("watching")
	second := program.Start(t, server)
	if second.Wait() == 0 {
		t.Error("a second one may run")
	}
	second.Says("another Watch has installed its table: table inet connsleuth, of process ")
	try(t, client, server, 4001, 1000)
	p.Says("}\n")
	p.Stop(syscall.SIGTERM)
	out, _ := p.Text()
	var v struct{ Cause string }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil || v.Cause != string(reject.CauseNoService) {
		t.Errorf("%v: %s", err, out)
	}
	waitState(t, server, unchanged)
}

// With -group nothing is added; -top tells at the end, which -for brings.
func TestProhibitedGroup(t *testing.T) {
	t.Parallel()
	client, server := refusing(t)
	p := program.Start(t, server, "-group=49,50", "-group", "51", "-for=3s", "-top=1")
	p.Says("watching")
	try(t, client, server, 4000, 1001)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if out, _ := p.Text(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "no-service") {
		t.Errorf("got %q", out)
	}
}

func TestProhibitedDryRun(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	for arg, want := range map[string]string{
		"-dry-run": "table inet connsleuth {\n", "-dry-run -group=5": "# nothing", "-h": "NFLOG group", "-group=x": "is no group",
	} {
		p := program.Start(t, h, strings.Fields(arg)...)
		if status := p.Wait(); (status != 0) != (arg == "-group=x") {
			t.Errorf("%s: status %d", arg, status)
		}
		p.Says(want)
	}
}

// On a terminal the lines are written over.
func TestView(t *testing.T) {
	var b bytes.Buffer
	v := &view{out: &b, live: true, top: 2, soon: true} // only drawn here
	for n := range uint16(3) {
		for range n + 1 {
			v.keep(reject.Verdict{Cause: reject.CauseNoService, Flow: conntrack.Tuple{SrcPort: n}, Count: int(n) + 1})
		}
	}
	v.draw()
	v.end()
	parts := strings.Split(b.String(), "\x1b[J")
	if len(parts) != 3 || strings.Count(parts[2], "\n") != 2 || !strings.HasSuffix(parts[1], "\x1b[2A") || parts[0] != "" {
		t.Errorf("got %q", parts)
	}
	if first, _, _ := strings.Cut(parts[2], "\n"); !strings.Contains(first, "(3 times)") {
		t.Errorf("the first is %q", first)
	}
}
