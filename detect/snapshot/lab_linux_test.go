package snapshot

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// TestRecordReplay looks at a host with a ghost, a forgotten connection and a
// timeout that is too short, live and by way of a directory: the findings are
// the same.
func TestRecordReplay(t *testing.T) {
	client, server := lab.Two(t)
	track := nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{{Name: "input", Hook: nft.Input,
		Rules: []nft.Rule{{CTState: nft.Established | nft.Related, Verdict: nft.Accept}}}}}
	if err := server.Rules(t.Context(), track); err != nil {
		t.Fatal(err)
	}
	if err := server.SetSysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "300"); err != nil {
		t.Fatal(err)
	}
	ct, err := conntrack.Dial(&conntrack.Config{NetNS: server.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	defer ct.Close() //nolint:errcheck // at the end
	diag, err := sockdiag.Dial(&sockdiag.Config{NetNS: server.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	defer diag.Close() //nolint:errcheck // at the end
	for _, addr := range []netip.Addr{server.Addr4(), server.Addr6()} {
		connect(t, client, server, netip.AddrPortFrom(addr, 80))
	}
	haunt(t, ct, client, server)
	forget(t, ct, server.Addr6())

	h, err := System(server.FS())
	if err != nil {
		t.Fatal(err)
	}
	h.Addrs = []netip.Addr{server.Addr4(), server.Addr6()}
	unreadable, err := Owners(t.Context(), &h, "/proc", diag.All(t.Context(), sockdiag.Query{}))
	if err != nil || len(h.Files) != 2 || h.Files[1].Process.PID != os.Getpid() || h.Files[1].Used == 0 || len(h.Holders) < 4 {
		t.Errorf("%d unreadable, %v: %+v, %v", unreadable, err, h.Files, h.Holders)
	}
	flows, err := ct.Snapshot(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := diag.Snapshot(t.Context(), sockdiag.Query{Info: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "incident")
	if err := Record(dir, h, server.FS(), seq(nil, sockets.Sockets...), seq(nil, flows.Flows...)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*detect.Host{&h, &s.Host} { // these were read twice, and go on counting
		h.Sysctls.FileCount, h.Settings.Count, h.Usage.Count = [3]uint64{}, 1, 1
	}
	if len(s.Files) < 5 || !s.Host.Now.Equal(h.Now) || s.Host.Settings != h.Settings || s.Host.Sysctls != h.Sysctls || s.Host.Usage != h.Usage ||
		s.Host.Kernel != h.Kernel || h.Kernel == "" || len(s.Host.Stats) != len(h.Stats) || !reflect.DeepEqual(s.Host.Files, h.Files) ||
		!reflect.DeepEqual(s.Host.Holders, h.Holders) {
		t.Errorf("recorded %+v\nreplayed %+v", h, s.Host)
	}
	for _, f := range s.Files {
		if f.Unused != "" {
			t.Errorf("%+v", f)
		}
	}
	if sees, err := s.Sees(); sees != detect.NeedFlows|detect.NeedSockets|detect.NeedSettings|detect.NeedFiles || err != nil {
		t.Errorf("sees %v, %v", sees, err)
	}
	compare(t, h, sockets.Sockets, flows.Flows, s)
}

func compare(t *testing.T, h detect.Host, sockets []sockdiag.Socket, flows []conntrack.Flow, s *Snapshot) {
	t.Helper()
	detectors, _ := detect.Seeing(detect.NeedFlows|detect.NeedSockets|detect.NeedSettings|detect.NeedFiles, detect.All()...)
	live, err := detect.Scan(h, seq(nil, sockets...), seq(nil, flows...), detectors...)
	if err != nil {
		t.Fatal(err)
	}
	replayed, err := detect.Scan(s.Host, s.Sockets, s.Flows, detectors...)
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[string]int)
	for i := range live {
		live[i].Until, by[live[i].Detector] = live[i].Until.UTC().Round(0), by[live[i].Detector]+1
	}
	for i := range replayed {
		replayed[i].Until = replayed[i].Until.UTC().Round(0)
	}
	if !reflect.DeepEqual(live, replayed) {
		t.Errorf("live     %v\nreplayed %v", live, replayed)
	}
	if by["Ghosts"] != 1 || by["LostFlows"] != 1 || by["Audit"] == 0 {
		t.Errorf("found %v", live)
	}
}

// connect makes a connection that stays until the end of the test.
func connect(t *testing.T, client, server *lab.Host, to netip.AddrPort) {
	t.Helper()
	network := "tcp4"
	if to.Addr().Is6() {
		network = "tcp6"
	}
	l, err := server.Listen(network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := client.Dial(t.Context(), "tcp", netip.AddrPort{}, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
}

// haunt puts a ghost into the table.
func haunt(t *testing.T, ct *conntrack.Conn, client, server *lab.Host) {
	t.Helper()
	tuple := conntrack.Tuple{Src: server.Addr4(), Dst: client.Addr4(), SrcPort: 9102, DstPort: 51522, Proto: conntrack.ProtoTCP}
	ghost := conntrack.Flow{Original: tuple, Reply: tuple.Invert(), Timeout: 299 * time.Second, TCP: conntrack.TCPInfo{State: conntrack.TCPEstablished}}
	if err := ct.Create(t.Context(), ghost); err != nil {
		t.Fatal(err)
	}
}

// forget deletes the entries of the connections to an address.
func forget(t *testing.T, ct *conntrack.Conn, addr netip.Addr) {
	t.Helper()
	for f, err := range ct.All(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Original.Dst != addr {
			continue
		}
		if err := ct.Delete(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
}
