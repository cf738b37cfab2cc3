package fail2ban_test

import (
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/ban/fail2ban"
)

// Lines for the jails of Files: one that bans, and one that counts.
func Example() {
	at := time.Date(2026, 12, 22, 20, 30, 1, 0, time.UTC)
	line, err := fail2ban.AppendBan(nil, at, ban.Entry{
		Prefix: netip.MustParsePrefix("198.51.100.9/32"),
		Until:  ban.Forever,
		Reason: "Conn Cnt: 684 is greater than limit:60",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", line)
	fmt.Printf("%s", fail2ban.AppendHit(nil, at, netip.MustParseAddr("197.203.26.142")))
	files, err := fs.Glob(fail2ban.Files(), "*/*")
	fmt.Println(files, err)
	// Output:
	// 2026-12-22T20:30:01+0000 connsleuth: ban src=198.51.100.9 why=Conn Cnt: 684 is greater than limit:60
	// Dec 22 20:30:01[197.203.26.142]
	// [filter.d/connsleuth-hits.conf filter.d/connsleuth.conf jail.d/connsleuth.conf] <nil>
}
