package ban

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
)

// Protected is a prefix that must not be banned, and why.
type Protected struct {
	Prefix netip.Prefix
	Why    string // "default gateway of eth0"
}

// Reserved are the addresses that are nobody's: unspecified, loopback,
// link-local, multicast and broadcast (RFC 6890). A packet from one of them is
// forged or of the local network, and dropping it breaks the latter.
func Reserved() []Protected {
	return []Protected{
		{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
		{netip.MustParsePrefix("::/128"), "unspecified"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
}

// Own reads the addresses of this host from net/fib_trie and net/if_inet6 of a
// /proc file system. It takes no privilege.
func Own(proc fs.FS) ([]Protected, error) {
	var out []Protected
	own := func(a netip.Addr) { out = append(out, Protected{Host(a), "own address"}) }
	var last netip.Addr
	err := lines(proc, "net/fib_trie", func(line string) error {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "|-- "); ok {
			a, err := netip.ParseAddr(text)
			last = a
			return err
		}
		if last.IsValid() && strings.Contains(line, "/32 host LOCAL") {
			own(last)
		}
		return nil
	})
	err6 := lines(proc, "net/if_inet6", func(line string) error {
		a, err := hexAddr(strings.Fields(line)[0])
		own(a)
		return err
	})
	return out, errors.Join(err, err6)
}

// Gateways reads the next hops of all routes from net/route and net/ipv6_route
// of a /proc file system. It takes no privilege.
func Gateways(proc fs.FS) ([]Protected, error) {
	var out []Protected
	add := func(a netip.Addr, iface string) {
		if a.IsValid() && !a.IsUnspecified() {
			out = append(out, Protected{Host(a), "gateway, by " + iface})
		}
	}
	header := true
	err := lines(proc, "net/route", func(line string) error {
		f := strings.Fields(line)
		if header || len(f) < 3 {
			header = false
			return nil
		}
		// The address as a number of this processor's byte order.
		n, err := strconv.ParseUint(f[2], 16, 32)
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(n))
		add(netip.AddrFrom4(b), f[0])
		return err
	})
	err6 := lines(proc, "net/ipv6_route", func(line string) error {
		f := strings.Fields(line)
		if len(f) < 10 {
			return nil
		}
		a, err := hexAddr(f[4])
		add(a, f[9])
		return err
	})
	return out, errors.Join(err, err6)
}

// Resolvers reads the name servers from resolv.conf of an /etc file system.
func Resolvers(etc fs.FS) ([]Protected, error) {
	var out []Protected
	err := lines(etc, "resolv.conf", func(line string) error {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			a, err := netip.ParseAddr(f[1])
			if err != nil {
				return nil // the resolver skips it too
			}
			out = append(out, Protected{Host(a), "name server"})
		}
		return nil
	})
	return out, err
}

// Session returns the peer of the SSH session that a process was started in,
// from the value of its environment variable SSH_CONNECTION (ssh(1)): none
// without one.
func Session(sshConnection string) ([]Protected, error) {
	f := strings.Fields(sshConnection)
	if len(f) == 0 {
		return nil, nil
	}
	a, err := netip.ParseAddr(f[0])
	if err != nil {
		return nil, fmt.Errorf("ban: SSH_CONNECTION=%q: the first word is no address", sshConnection)
	}
	return []Protected{{Host(a), "this SSH session"}}, nil
}

// lines calls line for each line of a file. One that is not there has none: a
// kernel without IPv6 has no file of it.
func lines(fsys fs.FS, name string, line func(string) error) error {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ban: %w", err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		if strings.TrimSpace(s.Text()) == "" {
			continue
		}
		if err := line(s.Text()); err != nil {
			return fmt.Errorf("ban: %s: line %d: %w", name, n, err)
		}
	}
	return s.Err()
}

func hexAddr(text string) (netip.Addr, error) {
	b, err := hex.DecodeString(text)
	a, ok := netip.AddrFromSlice(b)
	if err != nil || !ok || !a.Is6() {
		return netip.Addr{}, fmt.Errorf("%q is no IPv6 address of 32 hexadecimal digits", text)
	}
	return a, nil
}
