package reject

import (
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// TestLiveRules reads rules of each kind, over those of an installed table.
func TestLiveRules(t *testing.T) {
	t.Parallel()
	lab.Tool(t, "nft")
	_, h := lab.Two(t)
	conn, err := nft.Dial(h.NetNS())
	must(t, err)
	defer conn.Close() //nolint:errcheck // only asked
	w := newWatch(Config{NetNS: h.NetNS(), Proc: h.FS()}.withDefaults())
	w.nft = conn
	now := time.Now()
	if got := w.rules(within(t), now); got.Result != Present || got.Value != (Rules{}) {
		t.Errorf("no rules: %+v", got)
	}
	must(t, script(t, h, `nft -f - <<END
table inet raw {
	ct helper ftp { type "ftp" protocol tcp; }
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		udp dport 53 notrack
		iifname "client" ct zone set 5
	}
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 21 ct helper set "ftp"
		tcp flags & rst == rst drop
		udp dport 54 drop
	}
}
END`))
	if got := w.rules(within(t), now.Add(rulesAge-1)); got.Value != (Rules{}) {
		t.Errorf("read again too early: %+v", got)
	}
	want := Rules{
		Notrack: "udp dport 53 notrack", Zone: `iifname "client" ct zone set 5`,
		Helper: `tcp dport 21 ct helper set "ftp"`, DropReset: "tcp flags & rst == rst drop",
	}
	if got := w.rules(within(t), now.Add(rulesAge)); got != Found(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	must(t, conn.Close())
	if got := w.rules(within(t), now.Add(2*rulesAge)); got.Result != NotLooked {
		t.Errorf("cannot be read: %+v", got)
	}
}
