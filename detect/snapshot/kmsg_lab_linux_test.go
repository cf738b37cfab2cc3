package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// What the kernel says of a flood of SYNs is read, with the time that it was
// said; or the error names the capability that is wanted.
func TestLabKernelLog(t *testing.T) {
	client, server := lab.Two(t)
	start := time.Now().Truncate(time.Second)
	if _, err := KernelLog(start); err != nil {
		if errors.Is(err, fs.ErrPermission) && !strings.Contains(err.Error(), "CAP_SYSLOG") {
			t.Error(err)
		}
		t.Skip(err)
	}
	for name, value := range map[string]string{"net.core.somaxconn": "4", "net.ipv4.tcp_syncookies": "1"} {
		if err := server.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	// The client hears nothing, and so ends no handshake.
	err := client.Rules(t.Context(), nft.Table{Family: nft.INet, Name: "deaf", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: []nft.Rule{{Proto: nft.TCP, Verdict: nft.Drop}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	// The kernel says it once of each listener, and not more often than ten
	// messages in five seconds, with all others of the machine.
	for port := uint16(42000); time.Since(start) < 30*time.Second; port++ {
		lab.Flood(t, client, server, port)
		if line := said(t, start, fmt.Sprint(port, ". ")); line != "" {
			at, err := time.ParseInLocation(time.ANSIC, strings.Split(line[1:], "]")[0], time.Local)
			if err != nil || at.Before(start.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
				t.Errorf("%s: %v, between %v and now", line, err, start)
			}
			return
		}
	}
	t.Error("the kernel said nothing of the flood")
}

// said is the line of the log that has some words.
func said(t *testing.T, since time.Time, words string) string {
	t.Helper()
	log, err := KernelLog(since)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(log, func(line string) bool {
		return strings.Contains(line, "Possible SYN flooding on port ") && strings.Contains(line, words)
	})
	if i < 0 {
		return ""
	}
	return log[i]
}
