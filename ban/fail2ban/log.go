package fail2ban

import (
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/ban"
)

//go:embed config
var config embed.FS

// Files are filter.d and jail.d, as they go below /etc/fail2ban: the filters
// connsleuth, for the lines of AppendBan, and connsleuth-hits, for those of
// AppendHit, and a jail for each, not enabled.
func Files() fs.FS {
	files, err := fs.Sub(config, "config")
	if err != nil {
		panic(err) // the name is valid
	}
	return files
}

// AppendHit appends the line that counts once against a source, as in
//
//	Dec 22 20:30:01[197.203.26.142]
//
// The time is that of at's location, and must be that of fail2ban's. An address
// that is not valid appends nothing.
func AppendHit(b []byte, at time.Time, source netip.Addr) []byte {
	if !source.IsValid() {
		return b
	}
	b = at.AppendFormat(b, "Jan 02 15:04:05[")
	b = source.Unmap().WithZone("").AppendTo(b)
	return append(b, "]\n"...)
}

// AppendBan appends the line that bans a source for as long as the jail says:
//
//	2026-12-22T20:30:01+0000 connsleuth: ban src=198.51.100.9 why=Conn Cnt: 684 is greater than limit:60
//
// What could be taken for the end of the line or for something else is taken
// out of the reason. An entry that cannot be banned is an *ban.EntryError, and
// appends nothing.
func AppendBan(b []byte, at time.Time, e ban.Entry) ([]byte, error) {
	if err := e.Check(); err != nil {
		return b, err
	}
	b = at.AppendFormat(b, "2006-01-02T15:04:05-0700")
	b = fmt.Appendf(b, " connsleuth: ban src=%s", name(e.Prefix))
	if why := plain(e.Reason); why != "" {
		b = fmt.Appendf(b, " why=%s", why)
	}
	return append(b, '\n'), nil
}

// name is what fail2ban calls a source: a host is an address.
func name(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// maxReason is how much of a reason is given to fail2ban, bytes.
const maxReason = 200

// plain takes everything out of a reason that a terminal, a shell, an action or
// the protocol could take for more than text.
func plain(reason string) string {
	reason = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(" .,:/_-+=[]@", r):
			return r
		}
		return '?'
	}, reason)
	return strings.TrimSpace(reason[:min(len(reason), maxReason)])
}
