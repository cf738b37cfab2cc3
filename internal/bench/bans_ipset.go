package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	digineo "github.com/digineo/go-ipset/v2"
	"github.com/ti-mo/netfilter"
	vishvananda "github.com/vishvananda/netlink"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/ipset"
	"github.com/connsleuth/connsleuth/internal/lab"
)

const (
	ipsetName   = "bench"
	ipsetAll    = "ban, ipset: connsleuth Ban"
	ipsetSingle = "ban one, ipset: connsleuth Ban"
	ipsetList   = "list, ipset: connsleuth List"

	// ipsetOnes are made one by one where there are many.
	ipsetOnes = 100
)

var ipsetWorks = []work{
	{ipsetAll, ipsetAll, true, ipsetBan},
	{"ban, ipset: ipset restore", ipsetAll, true, ipsetRestore},
	{"ban, ipset: digineo/go-ipset Add by 1000", ipsetAll, true, ipsetDigineo},
	{"ban, ipset: vishvananda/netlink Handle.IpsetAdd", ipsetAll, true, ipsetVishvananda},
}

var ipsetListWorks = []work{
	{ipsetList, ipsetList, true, ipsetListOurs},
	{"list, ipset: ipset list", ipsetList, false, ipsetListTool},
	{"list, ipset: vishvananda/netlink Handle.IpsetList", ipsetList, true, ipsetListVishvananda},
}

var ipsetOneWorks = []work{
	{ipsetSingle, ipsetSingle, true, ipsetBanOne},
	{"ban one, ipset: ipset add", ipsetSingle, true, ipsetAddOne},
}

// ipsetHost is one of 2^24 hosts.
func ipsetHost(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// ipsetBans are n hosts, with an hour each.
func ipsetBans(n int) []ban.Entry {
	until := ban.For(time.Now(), time.Hour)
	list := make([]ban.Entry, n)
	for i := range list {
		list[i] = ban.Entry{Prefix: ban.Host(ipsetHost(i)), Until: until}
	}
	return list
}

// ipsetPlace is a private namespace with a set of bans.
type ipsetPlace struct {
	net           *lab.Network
	host          *lab.Host
	n             int
	before, after int // how many bans there are around a work
	dirty         bool
}

func openIpset(n, before, after int) (place, error) {
	network, err := lab.Open()
	if err != nil {
		return nil, err
	}
	host, err := network.Host("sets")
	if err != nil {
		return nil, err
	}
	return &ipsetPlace{net: network, host: host, n: n, before: before, after: after}, nil
}

func openIpsetEmpty(n int) (place, error)  { return openIpset(n, 0, n) }
func openIpsetFull(n int) (place, error)   { return openIpset(n, n, n) }
func openIpsetSingle(n int) (place, error) { return openIpset(ipsetOnes, n, n+ipsetOnes) }

// String describes the set.
func (p *ipsetPlace) String() string {
	return fmt.Sprintf("%d bans of IPv4 hosts in an ipset, with timeouts and room for comments, where there are %d", p.n, p.before)
}

func (p *ipsetPlace) config() *ipset.Config {
	return &ipset.Config{NetNS: p.host.NetNS(), Name: ipsetName, Kinds: ipset.Hosts4, MaxElem: 1 << 24}
}

// fill looks what the work before has left, and makes the set anew.
func (p *ipsetPlace) fill(ctx context.Context) error {
	s, err := ipset.Open(ctx, p.config())
	if err != nil {
		return err
	}
	have, err := count(s.List(ctx))
	if err == nil && p.dirty && have != p.after {
		err = fmt.Errorf("%d bans are left, want %d", have, p.after)
	}
	p.dirty = true
	if err = errors.Join(err, s.Purge(ctx), s.Close()); err != nil {
		return err
	}
	if s, err = ipset.Open(ctx, p.config()); err != nil {
		return err
	}
	return errors.Join(s.Ban(ctx, ipsetBans(p.before)...), s.Close())
}

func (p *ipsetPlace) size() int                { return p.n }
func (p *ipsetPlace) do(fn func() error) error { return p.host.Do(fn) }
func (p *ipsetPlace) Close() error             { return p.net.Close() }

func withIpset(do func(context.Context, *ipset.Sets) (int, error)) (outcome, error) {
	ctx := context.Background()
	s, err := ipset.Open(ctx, &ipset.Config{Name: ipsetName, Kinds: ipset.Hosts4})
	if err != nil {
		return outcome{}, err
	}
	defer s.Close() //nolint:errcheck // nothing under way
	began := time.Now()
	n, err := do(ctx, s)
	return outcome{entries: n, wall: time.Since(began)}, err
}

func ipsetBan() (outcome, error) {
	list := ipsetBans(asked)
	return withIpset(func(ctx context.Context, s *ipset.Sets) (int, error) { return asked, s.Ban(ctx, list...) })
}

func ipsetBanOne() (outcome, error) {
	return withIpset(func(ctx context.Context, s *ipset.Sets) (int, error) {
		until := ban.For(time.Now(), time.Hour)
		for i := range ipsetOnes {
			if err := s.Ban(ctx, ban.Entry{Prefix: ban.Host(ipsetHost(1<<23 + i)), Until: until}); err != nil {
				return i, err
			}
		}
		return ipsetOnes, nil
	})
}

func ipsetListOurs() (outcome, error) {
	return withIpset(func(ctx context.Context, s *ipset.Sets) (int, error) { return count(s.List(ctx)) })
}

func ipsetListTool() (outcome, error) { return ipsetTool("list", ipsetName) }

// ipsetRestore writes the file for ipset(8), and takes the time of ipset(8) alone.
func ipsetRestore() (outcome, error) {
	f, err := os.CreateTemp("", "connsleuth-bench-")
	if err != nil {
		return outcome{}, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a file of the system's scratch directory
	var text strings.Builder
	for i := range asked {
		fmt.Fprintf(&text, "add %s %v timeout 3600\n", ipsetName, ipsetHost(i))
	}
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Close()); err != nil {
		return outcome{}, err
	}
	return ipsetTool("-exist", "-file", f.Name(), "restore")
}

func ipsetAddOne() (outcome, error) {
	total := outcome{entries: ipsetOnes, tool: &result{}}
	for i := range ipsetOnes {
		if _, err := total.tool.add(exec.Command("ipset", "add", ipsetName, ipsetHost(1<<23+i).String(), "timeout", "3600")); err != nil {
			return outcome{}, err
		}
	}
	return total, nil
}

// ipsetTool runs ipset(8), and throws what it prints away.
func ipsetTool(args ...string) (outcome, error) {
	done := outcome{entries: asked, tool: &result{}}
	_, err := done.tool.add(exec.Command("ipset", args...))
	return done, err
}

// ipsetDigineo sends as many at once as that library can.
func ipsetDigineo() (outcome, error) {
	c, err := digineo.Dial(netfilter.ProtoIPv4, nil)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close() //nolint:errcheck // nothing under way
	list := make([]netip.Addr, asked)
	for i := range list {
		list[i] = ipsetHost(i)
	}
	began := time.Now()
	const part = 1000
	for first := 0; first < asked; first += part {
		var entries []*digineo.Entry
		for _, a := range list[first:min(first+part, asked)] {
			entries = append(entries, digineo.NewEntry(digineo.EntryIP(net.IP(a.AsSlice())), digineo.EntryTimeout(time.Hour)))
		}
		if err := c.Add(ipsetName, entries...); err != nil {
			return outcome{}, err
		}
	}
	return outcome{entries: asked, wall: time.Since(began)}, nil
}

func withIpsetHandle(do func(*vishvananda.Handle) (int, error)) (outcome, error) {
	h, err := vishvananda.NewHandle()
	if err != nil {
		return outcome{}, err
	}
	defer h.Close()
	began := time.Now()
	n, err := do(h)
	return outcome{entries: n, wall: time.Since(began)}, err
}

func ipsetVishvananda() (outcome, error) {
	return withIpsetHandle(func(h *vishvananda.Handle) (int, error) {
		seconds := uint32(3600)
		for i := range asked {
			e := &vishvananda.IPSetEntry{IP: net.IP(ipsetHost(i).AsSlice()), Timeout: &seconds, Replace: true}
			if err := h.IpsetAdd(ipsetName, e); err != nil {
				return i, err
			}
		}
		return asked, nil
	})
}

func ipsetListVishvananda() (outcome, error) {
	return withIpsetHandle(func(h *vishvananda.Handle) (int, error) {
		list, err := h.IpsetList(ipsetName)
		if err != nil {
			return 0, err
		}
		return len(list.Entries), nil
	})
}
