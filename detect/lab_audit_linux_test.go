package detect

import (
	"errors"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// command is one that sets a sysctl of a network namespace.
var command = regexp.MustCompile("`sysctl -w (net[.][a-z0-9_.]+)=([0-9]+)`")

// TestAuditOfHost breaks the settings of a host as the incidents had them, and
// does what Audit tells to until it is content.
func TestAuditOfHost(t *testing.T) {
	_, h := lab.Two(t)
	audit := Audit{LongestRequest: 15 * time.Minute}
	for _, f := range Find(settingsOf(t, h), Audit{}) {
		if f.Severity > Info {
			t.Errorf("with the kernel's defaults: %v", f)
		}
	}
	for name, value := range map[string]string{
		"net.netfilter.nf_conntrack_tcp_timeout_established": "300",
		"net.netfilter.nf_conntrack_generic_timeout":         "601",
		"net.netfilter.nf_conntrack_tcp_loose":               "0",
		"net.ipv4.tcp_syncookies":                            "0",
		"net.ipv4.tcp_max_syn_backlog":                       "128",
		"net.ipv4.tcp_max_tw_buckets":                        "1000",
		"net.ipv4.tcp_keepalive_intvl":                       "76",
		"net.ipv4.tcp_tw_reuse":                              "1",
		"net.ipv4.tcp_timestamps":                            "0",
		"net.ipv4.tcp_retries1":                              "2",
		"net.core.somaxconn":                                 "128",
	} {
		if err := h.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	warned := make(map[string]bool)
	for _, f := range Find(settingsOf(t, h), audit) {
		if f.Severity > Info {
			warned[f.Subject] = true
		}
	}
	for _, name := range []string{"net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
		syncookies, timeWaitReuse} {
		if !warned[name] {
			t.Errorf("%s is not warned of, but %v", name, warned)
		}
	}
	if len(warned) != 4 {
		t.Errorf("warned of %v", warned)
	}
	done := obey(t, h, Find(settingsOf(t, h), audit))
	done = append(done, obey(t, h, Find(settingsOf(t, h), audit))...) // of two that were wrong together
	for _, f := range Find(settingsOf(t, h), audit) {
		if command.MatchString(f.Fix[0]) {
			t.Errorf("after all was done: %v", f)
		}
	}
	for _, fix := range done {
		Proved(t, fix)
	}
}

// obey does the first thing that each finding tells to do, and returns all.
func obey(t *testing.T, h *lab.Host, found []Finding) (done []string) {
	t.Helper()
	for _, f := range found {
		for _, c := range command.FindAllStringSubmatch(f.Fix[0], -1) {
			if _, err := h.Exec(t.Context(), "sysctl", "-w", c[1]+"="+c[2]); errors.Is(err, exec.ErrNotFound) {
				err = h.SetSysctl(c[1], c[2])
				noError(t, err)
			} else if err != nil {
				t.Errorf("%s: %v", c[0], err)
			}
		}
		done = append(done, f.Fix[0])
	}
	return done
}

func settingsOf(t *testing.T, h *lab.Host) Host {
	t.Helper()
	host := Host{Now: now, Old: OldSettings(h.FS())}
	var err error
	if host.Settings, err = conntrack.ReadSettings(h.FS()); err != nil {
		t.Fatal(err)
	}
	if host.Sysctls, err = sockdiag.ReadSettings(h.FS()); err != nil {
		t.Fatal(err)
	}
	return host
}
