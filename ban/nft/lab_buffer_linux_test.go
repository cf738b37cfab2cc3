package nft

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// tightSocket is a socket whose send buffer stays as small as the kernel makes it,
// as where net.core.wmem_max is small and SO_SNDBUFFORCE is refused. The kernel
// itself refuses what is too large, with EMSGSIZE, or, as it does where memory is
// short, with what is asked for.
type tightSocket struct {
	nfnl.Socket // what is not needed here
	file        *os.File
	raw         syscall.RawConn
	refusal     error
	refused     *int
}

func dialTight(bytes int, refusal error, refused *int) (nfnl.Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	s := &tightSocket{file: os.NewFile(uintptr(fd), "netlink"), refusal: refusal, refused: refused}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes/2), // which the kernel doubles
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

func (s *tightSocket) Send(b []byte) (err error) {
	werr := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	if errors.Is(err, unix.EMSGSIZE) {
		*s.refused++
		err = s.refusal
	}
	return errors.Join(werr, err)
}

func (s *tightSocket) Receive(b []byte) (int, error)     { return s.file.Read(b) }
func (s *tightSocket) SetReadDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }
func (s *tightSocket) SetReadBuffer(int) error           { return nil }
func (s *tightSocket) Close() error                      { return s.file.Close() }

// openTight opens a backend on a host whose transactions go by such sockets.
func openTight(t *testing.T, h *lab.Host, refusal error) (b *Backend, refused *int) {
	t.Helper()
	refused = new(int)
	b, err := Open(t.Context(), &Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	tight, err := nfnl.NewConn(func() (s nfnl.Socket, err error) {
		err = h.Do(func() error {
			s, err = dialTight(16<<10, refusal, refused)
			return err
		})
		return s, err
	})
	if err = errors.Join(err, b.nl.Close()); err != nil {
		t.Fatal(err)
	}
	b.nl = tight
	return b, refused
}

// TestTightBuffer: what has no room in the send buffer goes in smaller
// transactions, and nothing is lost: bans, renewals and unbans, in both families.
func TestTightBuffer(t *testing.T) {
	for name, refusal := range map[string]error{"EMSGSIZE": unix.EMSGSIZE, "ENOBUFS": unix.ENOBUFS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := lab.New(t).MustHost(t, "host")
			b, refused := openTight(t, h, refusal)
			var entries []ban.Entry
			var prefixes []netip.Prefix
			for i := range 1500 {
				p := ban.Host(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
				if i%2 == 0 {
					p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 6: byte(i >> 8), 7: byte(i)}), 64)
				}
				e := ban.Entry{Prefix: p, Until: ban.For(time.Now(), time.Hour), Reason: "Conn Cnt: 684 is greater than limit:60"}
				if i%3 == 0 {
					e.Until = ban.Forever
				}
				entries, prefixes = append(entries, e), append(prefixes, p)
			}
			bad := ban.Entry{Prefix: netip.MustParsePrefix("203.0.113.1/24"), Until: ban.Forever} // with host bits
			for _, what := range []string{"bans", "renewals"} {
				*refused = 0
				err := b.Ban(t.Context(), append(entries[:700:700], append([]ban.Entry{bad}, entries[700:]...)...)...)
				if failed, only := ban.Failed(err); !only || len(failed) != 1 || failed[0].Prefix != bad.Prefix {
					t.Fatalf("%s: %v; want %v alone to be refused", what, err, bad.Prefix)
				}
				if *refused == 0 {
					t.Errorf("%s: all had room", what)
				}
				wantBans(t, h, entries)
			}
			*refused = 0
			if err := b.Unban(t.Context(), prefixes...); err != nil || *refused == 0 {
				t.Errorf("unban: %v; %d datagrams had no room", err, *refused)
			}
			wantBans(t, h, nil)
		})
	}
}

// wantBans compares what the kernel has with what it should.
func wantBans(t *testing.T, h *lab.Host, entries []ban.Entry) {
	t.Helper()
	b, err := Open(t.Context(), &Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // only asked
	got := make(map[netip.Prefix]bool)
	for e, err := range b.List(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Prefix] = e.Until.Forever()
	}
	if len(got) != len(entries) {
		t.Errorf("%d are in force, want %d", len(got), len(entries))
	}
	for _, e := range entries {
		if forever, banned := got[e.Prefix]; !banned || forever != e.Until.Forever() {
			t.Fatalf("%v: in force %v, for ever %v", e, banned, forever)
		}
	}
}

// TestTooTight: one ban alone that has no room is an error of that ban, and is not
// in force.
func TestTooTight(t *testing.T) {
	t.Parallel()
	h := lab.New(t).MustHost(t, "host")
	b, err := Open(t.Context(), &Config{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // nothing under way
	nothing, err := nfnl.NewConn(func() (nfnl.Socket, error) { return noRoom{}, nil })
	if err = errors.Join(err, b.nl.Close()); err != nil {
		t.Fatal(err)
	}
	b.nl = nothing
	p := netip.MustParsePrefix("198.51.100.1/32")
	err = b.Ban(t.Context(), ban.Entry{Prefix: p, Until: ban.Forever})
	if !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("Ban: %v; want EMSGSIZE", err)
	}
	wantBans(t, h, nil)
}

// noRoom is a socket that takes no datagram.
type noRoom struct{ nfnl.Socket }

func (noRoom) Send([]byte) error               { return unix.EMSGSIZE }
func (noRoom) SetReadDeadline(time.Time) error { return nil }
func (noRoom) Close() error                    { return nil }
