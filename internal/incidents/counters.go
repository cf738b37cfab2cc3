package incidents

import (
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
)

// snmp reads a counter of /proc/net/snmp, such as Icmp's OutDestUnreachs, of
// netstat, such as TcpExt's ListenOverflows, or of snmp6, Icmp6's; ok is false for one that the kernel does not have.
func (h *host) snmp(protocol, name string) (value uint64, ok bool) {
	file := "net/snmp"
	switch {
	case strings.HasSuffix(protocol, "6"):
		file = "net/snmp6"
	case strings.HasSuffix(protocol, "Ext"):
		file = "net/netstat"
	}
	text := string(get(fs.ReadFile(h.FS(), file)))
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch i := slices.Index(names, name); {
		case words[0] == protocol+name:
			value, ok = number(words[1]), true
		case words[0] == protocol+":" && i > 0:
			value, ok = number(words[i]), true
		case words[0] == protocol+":":
			names = words
		}
	}
	return value, ok
}

func number(s string) uint64 { return get(strconv.ParseUint(s, 10, 64)) }

// icmp is the protocol that tells of errors, as /proc/net/snmp has it.
func (st *stage) icmp() string {
	if st.ipv6 {
		return "Icmp6"
	}
	return "Icmp"
}

// tally is what a host has counted.
type tally struct {
	earlier detect.Earlier
	counts  reject.Counters
}

func (st *stage) tally(h *host) tally {
	t := tally{earlier: detect.Earlier{At: time.Now(), Usage: get(h.ct.Usage(st.ctx)), Stats: get(h.ct.Stats(st.ctx))}}
	t.counts.Conntrack = conntrack.Total(t.earlier.Stats)
	_, t.counts.Refused, _ = h.counted(st.ctx) // a host without a wall refuses nothing
	t.counts.Errors, _ = h.snmp(st.icmp(), "OutDestUnreachs")
	for _, name := range []string{"OutRateLimitHost", "OutRateLimitGlobal"} {
		n, _ := h.snmp(st.icmp(), name)
		t.counts.RateLimited += n
	}
	t.counts.ReversePath, _ = h.snmp("TcpExt", "IPReversePathFilter")
	t.counts.Overflows, _ = h.snmp("TcpExt", "ListenOverflows")
	return t
}

// since is what a host has counted since an earlier tally, as evidence.
func (st *stage) since(h *host, was tally) reject.Evidence {
	now := st.tally(h)
	c := reject.Counters{
		Window: now.earlier.At.Sub(was.earlier.At), Conntrack: now.counts.Conntrack.Sub(was.counts.Conntrack),
		Refused: now.counts.Refused - was.counts.Refused, Errors: now.counts.Errors - was.counts.Errors,
		RateLimited: now.counts.RateLimited - was.counts.RateLimited,
		ReversePath: now.counts.ReversePath - was.counts.ReversePath, Overflows: now.counts.Overflows - was.counts.Overflows,
	}
	return reject.Evidence{
		Refusal: reject.Counted, Counters: reject.Found(c), Usage: reject.Found(now.earlier.Usage),
		Settings: reject.Found(get(conntrack.ReadSettings(h.FS()))),
	}
}
