package detect

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The rows of the tests are text, of IPv4. eachFamily makes IPv6 of them.

const (
	server = "10.1.32.70"  // the host that is looked at
	client = "10.1.41.192" // its peer
	other  = "10.1.99.5"   // a third host
	public = "10.1.32.71"  // another address of the host
)

var toIPv6 = strings.NewReplacer(
	server, "2001:db8:32::70", client, "2001:db8:41::192", other, "2001:db8:99::5", public, "2001:db8:32::71",
	"127.0.0.1", "::1", "ipv4     2", "ipv6     10",
)

// eachFamily runs a test with text as it is, and with text made IPv6.
func eachFamily(t *testing.T, test func(t *testing.T, family func(string) string)) {
	t.Run("IPv4", func(t *testing.T) { test(t, func(s string) string { return s }) })
	t.Run("IPv6", func(t *testing.T) { test(t, toIPv6.Replace) })
}

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// rows makes a Host of flows, as conntrack -L writes them, and sockets: state,
// local address and port, remote address and port.
func rows(t testing.TB, family func(string) string, flows, sockets []string) Host {
	t.Helper()
	h := Host{Now: now, Addrs: []netip.Addr{netip.MustParseAddr(family(server))}, Settings: settings(t, nil)}
	for _, line := range flows {
		h.Flows = append(h.Flows, flow(t, family(line)))
	}
	for _, line := range sockets {
		h.Sockets = append(h.Sockets, socket(t, family(line)))
	}
	return h
}

func flow(t testing.TB, line string) conntrack.Flow {
	t.Helper()
	f, err := conntrack.ParseFlow(line)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func socket(t testing.TB, line string) sockdiag.Socket {
	t.Helper()
	w := strings.Fields(line)
	state, err := sockdiag.ParseState(w[0])
	if err != nil {
		t.Fatal(err)
	}
	s := sockdiag.Socket{State: state, Local: addrPort(t, w[1], w[2]), Remote: addrPort(t, w[3], w[4]), Inode: 1}
	s.Family = sockdiag.IPv6
	if s.Local.Addr().Is4() {
		s.Family = sockdiag.IPv4
	}
	return s
}

func addrPort(t testing.TB, addr, port string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddr(addr)
	var p uint16
	if _, perr := fmt.Sscan(port, &p); err != nil || perr != nil {
		t.Fatal(err, perr)
	}
	return netip.AddrPortFrom(a, p)
}

// settings are the kernel's defaults, some of them changed: names after
// nf_conntrack_.
func settings(t testing.TB, changed map[string]string) conntrack.Settings {
	t.Helper()
	proc := fstest.MapFS{}
	for name, value := range map[string]string{
		"tcp_loose": "1", "tcp_timeout_established": "432000", "tcp_timeout_close_wait": "60",
		"tcp_timeout_fin_wait": "120", "tcp_timeout_last_ack": "30",
		"tcp_timeout_syn_recv": "60", "tcp_timeout_syn_sent": "120", "tcp_timeout_time_wait": "120",
	} {
		if v, ok := changed[name]; ok {
			value = v
		}
		proc["sys/net/netfilter/nf_conntrack_"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	s, err := conntrack.ReadSettings(proc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// find runs a detector, and checks that it is pure.
func find(t *testing.T, d Detector, h Host) []Finding {
	t.Helper()
	detect := func(h Host) []Finding { return Find(h, d) }
	before := h
	before.Flows, before.Sockets, before.Addrs = slices.Clone(h.Flows), slices.Clone(h.Sockets), slices.Clone(h.Addrs)
	found := detect(h)
	if !reflect.DeepEqual(h, before) {
		t.Error("the rows were changed")
	}
	if again := detect(h); !reflect.DeepEqual(found, again) {
		t.Errorf("the same rows gave %v, then %v", found, again)
	}
	later := h
	later.Now = h.Now.Add(time.Hour)
	for i, f := range detect(later) {
		if !f.Until.IsZero() {
			f.Until = f.Until.Add(-time.Hour)
		}
		if !f.Since.IsZero() {
			f.Since = f.Since.Add(-time.Hour)
		}
		if !reflect.DeepEqual(f, found[i]) {
			t.Errorf("with another Now, got %v, want %v", f, found[i])
		}
	}
	return found
}

// mentions reports whether text has all of the words.
func mentions(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
