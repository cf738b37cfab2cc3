package detect_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// A host behind a router scans. The router finds it, and ends it by the command.
func TestLabForwardedScan(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, addr func(*lab.Host) netip.Addr) {
		t.Parallel()
		for _, tool := range []string{"nft", "ss", "ip"} {
			lab.Tool(t, tool)
		}
		client, router, server := lab.Three(t)
		track(t, router)
		ok(t, router.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", "5")) // of what has begun already
		// All of the network is the server's, who says nothing.
		ok(t, server.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "mute", Chains: []nft.Chain{
			{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, DstPort: 23, Verdict: nft.Drop}}},
		}}))
		network, path := "10.99.0.%d", "10.99.0.0/24"
		family := "-4"
		if addr(server).Is6() {
			network, path, family = "2001:db8:99::%x", "2001:db8:99::/64", "-6"
		}
		_, err := server.Exec(t.Context(), "ip", family, "route", "add", "local", path, "dev", "lo")
		ok(t, err)
		near4, near6 := router.Addrs(client)
		far4, far6 := server.Addrs(router)
		via := [2]netip.Addr{near4, far4}
		if addr(server).Is6() {
			via = [2]netip.Addr{near6, far6}
		}
		for i, h := range []*lab.Host{client, router} {
			_, err := h.Exec(t.Context(), "ip", family, "route", "add", path, "via", via[i].String())
			ok(t, err)
		}
		scan := func() { ok(t, client.Do(func() error { return begin(t, network, 41) })) }
		scan()
		e := open(t, router)
		scans := func() []detect.Finding {
			return detect.Find(e.look(t, near4, near6, far4, far6), detect.OutboundScan{}, detect.Pressure{})
		}
		var found []detect.Finding
		await(t, "a scan", func() bool { found = scans(); return len(found) > 0 })
		f := found[0]
		if len(found) != 1 || f.Count != 41 || f.Subject != addr(client).String()+", to port 23" {
			t.Fatalf("got %v", found)
		}
		for _, words := range []string{"add table inet filter", "add chain inet filter forward { type filter hook forward priority 0; }"} {
			_, err := router.Exec(t.Context(), "nft", words)
			ok(t, err)
		}
		run(t, router, f.Fix[1])
		run(t, client, f.Fix[0]) // there it says to look
		await(t, "the scan to end", func() bool { return len(scans()) == 0 })
		scan()
		if flows := tcp(e.look(t).Flows); len(flows) > 0 {
			t.Errorf("the scan goes on: %v", flows)
		}
		detect.Proved(t, f.Fix[0])
		detect.Proved(t, f.Fix[1])
		traced(t, client, f.Fix[2], router)
	})
}

// traced follows the way as it is advised, which ends at the router's rule.
func traced(t *testing.T, client *lab.Host, fix string, router *lab.Host) {
	t.Helper()
	lab.Tool(t, "traceroute")
	command := strings.Split(fix, "`")[1]
	out, err := client.Exec(t.Context(), "sh", "-c", command)
	near4, near6 := router.Addrs(client)
	if err != nil || !strings.Contains(string(out), near4.String()) && !strings.Contains(string(out), near6.String()) {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	detect.Proved(t, fix)
	detect.Proved(t, "see where the packets end: `"+command+"`") // the same
}

// begin begins connections to the first addresses of a network.
func begin(t *testing.T, network string, n int) error {
	for i := range n {
		to := netip.MustParseAddr(fmt.Sprintf(network, i+1))
		domain, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: 23, Addr: to.As16()})
		if to.Is4() {
			domain, at = unix.AF_INET, &unix.SockaddrInet4{Port: 23, Addr: to.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Connect(fd, at); !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}
