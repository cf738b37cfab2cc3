package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/nft"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	banAll   = "ban, nftables: connsleuth Ban"
	banOne   = "ban one, nftables: connsleuth Ban"
	renewAll = "renew, nftables: connsleuth Ban"
	listAll  = "list, nftables: connsleuth List"
	listSet  = "list, nftables: bare read(2), thrown away"

	// ones are made one by one where there are many.
	ones = 100
)

var banWorks = []work{
	{banAll, banAll, true, banNFT},
	{"ban, nftables: nft -f", banAll, true, banTool},
	{"ban, nftables: google/nftables SetAddElements, Flush", banAll, true, banGoogle},
	{"ban, nftables: google/nftables by 1000", banAll, true, banGoogleParts},
}

var bannedWorks = []work{
	{listAll, listAll, true, listNFT},
	{listSet, listAll, false, discardBans},
	{"list, nftables: nft list set", listAll, false, listTool},
	{"list, nftables: google/nftables GetSetElements", listAll, true, listGoogle},
	{renewAll, renewAll, true, banNFT},
}

var oneWorks = []work{
	{banOne, banOne, true, oneNFT},
	{"ban one, nftables: nft add element", banOne, true, oneTool},
	{"ban one, nftables: google/nftables SetAddElements, Flush", banOne, true, oneGoogle},
}

// bans are n hosts, with an hour each.
func bans(n int) []ban.Entry {
	until := ban.For(time.Now(), time.Hour)
	list := make([]ban.Entry, n)
	for i := range list {
		list[i] = ban.Entry{Prefix: ban.Host(numbered(i)), Until: until}
	}
	return list
}

func numbered(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// blocklist is a private namespace with a table of bans: empty before each work,
// or with n of them.
type blocklist struct {
	net    *lab.Network
	host   *lab.Host
	n      int
	before int // in the table before each work
	after  int // and after it
	dirty  bool
}

func openBlocklist(n, before, after int) (place, error) {
	network, err := lab.Open()
	if err != nil {
		return nil, err
	}
	host, err := network.Host("bans")
	if err != nil {
		return nil, err
	}
	return &blocklist{net: network, host: host, n: n, before: before, after: after}, nil
}

func openEmpty(n int) (place, error)  { return openBlocklist(n, 0, n) }
func openBanned(n int) (place, error) { return openBlocklist(n, n, n) }

// String describes the table.
func (b *blocklist) String() string {
	return fmt.Sprintf("%d bans of IPv4 hosts in nftables, with timeouts, where there are %d", b.n, b.before)
}

// fill looks what the work before has left, and makes the table anew.
func (b *blocklist) fill(ctx context.Context) error {
	for range 2 {
		bk, err := nft.Open(ctx, &nft.Config{NetNS: b.host.NetNS()})
		if err != nil {
			return err
		}
		if b.dirty {
			have, err := count(bk.List(ctx))
			if err != nil || have != b.after {
				return fmt.Errorf("%d bans are left, want %d: %w", have, b.after, err)
			}
			b.dirty = false
			if err := errors.Join(bk.Purge(ctx), bk.Close()); err != nil {
				return err
			}
			// The kernel goes on to free them (nf_tables_trans_destroy_work), and
			// would beside whoever needs less time to get ready.
			time.Sleep(time.Duration(b.after) * 2 * time.Microsecond)
			continue
		}
		b.dirty = true
		return errors.Join(bk.Ban(ctx, bans(b.before)...), bk.Close())
	}
	return nil
}

func (b *blocklist) size() int                { return b.n }
func (b *blocklist) do(fn func() error) error { return b.host.Do(fn) }
func (b *blocklist) Close() error             { return b.net.Close() }

// singles are bans made one by one, where there are n.
type singles struct {
	*blocklist
}

func openSingles(n int) (place, error) {
	p, err := openBlocklist(ones, n, n+ones)
	if err != nil {
		return nil, err
	}
	return &singles{p.(*blocklist)}, nil //nolint:errcheck,forcetypeassert // it is
}

// single are hosts that are not among bans.
func single(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
}

func withNFT(do func(context.Context, *nft.Backend) (int, error)) (outcome, error) {
	ctx := context.Background()
	b, err := nft.Open(ctx, nil)
	if err != nil {
		return outcome{}, err
	}
	defer b.Close() //nolint:errcheck // nothing under way
	began := time.Now()
	n, err := do(ctx, b)
	return outcome{entries: n, wall: time.Since(began)}, err
}

func banNFT() (outcome, error) {
	list := bans(asked)
	return withNFT(func(ctx context.Context, b *nft.Backend) (int, error) { return asked, b.Ban(ctx, list...) })
}

func oneNFT() (outcome, error) {
	return withNFT(func(ctx context.Context, b *nft.Backend) (int, error) {
		until := ban.For(time.Now(), time.Hour)
		for i := range ones {
			if err := b.Ban(ctx, ban.Entry{Prefix: ban.Host(single(i)), Until: until}); err != nil {
				return i, err
			}
		}
		return ones, nil
	})
}

func listNFT() (outcome, error) {
	return withNFT(func(ctx context.Context, b *nft.Backend) (int, error) { return count(b.List(ctx)) })
}

func listTool() (outcome, error) { return nftTool("list", "set", "inet", "connsleuth", "ipv4_32") }

// discardBans asks for the bans of IPv4 hosts and throws the answer away.
func discardBans() (outcome, error) {
	b := nfnl.NewNetfilter(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETSETELEM, nfnl.DumpAll, unix.NFPROTO_INET)
	b.String(unix.NFTA_SET_ELEM_LIST_TABLE, "connsleuth")
	b.String(unix.NFTA_SET_ELEM_LIST_SET, "ipv4_32")
	m := b.Message()
	header := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(m.Data)))
	header = binary.NativeEndian.AppendUint16(header, m.Type)
	header = binary.NativeEndian.AppendUint16(header, m.Flags)
	return outcome{}, discardAnswer(unix.NETLINK_NETFILTER, append(append(header, make([]byte, 8)...), m.Data...))
}

// banTool writes the file for nft(8), and takes the time of nft(8) alone.
func banTool() (outcome, error) {
	f, err := os.CreateTemp("", "connsleuth-bench-")
	if err != nil {
		return outcome{}, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a file of the system's scratch directory
	var text strings.Builder
	text.WriteString("add element inet connsleuth ipv4_32 {\n")
	for i := range asked {
		fmt.Fprintf(&text, "%v timeout 1h,\n", numbered(i))
	}
	text.WriteString("}\n")
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Close()); err != nil {
		return outcome{}, err
	}
	return nftTool("-f", f.Name())
}

func oneTool() (outcome, error) {
	total := outcome{entries: ones, tool: &result{}}
	for i := range ones {
		cmd := exec.Command("nft", "add", "element", "inet", "connsleuth", "ipv4_32", "{", single(i).String(), "timeout", "1h", "}")
		if _, err := total.tool.add(cmd); err != nil {
			return outcome{}, err
		}
	}
	return total, nil
}

// nftTool runs nft(8), and throws what it prints away.
func nftTool(args ...string) (outcome, error) {
	done := outcome{entries: asked, tool: &result{}}
	_, err := done.tool.add(exec.Command("nft", args...))
	return done, err
}
