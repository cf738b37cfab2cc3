package nft_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// assigning is a table whose rule assigns a helper to connections to port 21.
func assigning(helper string) nft.Table {
	t := table(nft.INet, nft.Chain{Hook: nft.Output}, nft.Rule{Proto: nft.TCP, DstPort: 21, Helper: "f"})
	t.Helpers = []nft.CTHelper{{Name: "f", Helper: helper, Proto: nft.TCP}}
	return t
}

// TestHelperSameAsTool has nft(8) apply the same as text.
func TestHelperSameAsTool(t *testing.T) {
	lab.Tool(t, "nft")
	ours, h1 := dial(t)
	_, h2 := dial(t)
	if err := ours.Apply(within(t), assigning("ftp")); err != nil {
		t.Fatal(err)
	}
	load(t, h2, `table inet t {
 ct helper f { type "ftp" protocol tcp; }
 chain c {
  type filter hook output priority 0;
  tcp dport 21 ct helper set "f"
 }
}`)
	if got, want := list(t, h1), list(t, h2); got != want || !strings.Contains(got, `ct helper set "f"`) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHelperUnknown(t *testing.T) {
	c, _ := dial(t)
	err := c.Apply(within(t), assigning("no-such-helper"))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), "nft: ct helper f of table inet t: the kernel lacks helper no-such-helper") {
		t.Errorf("got %v", err)
	}
}

// TestTimeoutPolicyUnknown sees the name reach the kernel.
func TestTimeoutPolicyUnknown(t *testing.T) {
	c, _ := dial(t)
	raw := nft.Table{Family: nft.IPv4, Name: "raw", Chains: []nft.Chain{{
		Name: "c", Hook: nft.Output, Priority: nft.PriorityRaw,
		Rules: []nft.Rule{{Proto: nft.TCP, TimeoutPolicy: "no-such-policy"}},
	}}}
	err := c.Apply(within(t), raw)
	if err == nil || !strings.Contains(err.Error(), "rule 1 of chain c of table ip raw: the kernel lacks one of its expressions, or timeout policy no-such-policy") {
		t.Errorf("got %v", err)
	}
}

// misassigned is what must be refused without asking the kernel.
var misassigned = map[string]func(*nft.Table, *nft.Chain, *nft.Rule){
	`helper "g" is none of the table's`: func(_ *nft.Table, _ *nft.Chain, r *nft.Rule) { r.Helper = "g" },
	"connections are not known yet": func(_ *nft.Table, c *nft.Chain, _ *nft.Rule) {
		c.Priority = nft.PriorityRaw
	},
	"ct helper f of table ip raw: given twice": func(t *nft.Table, _ *nft.Chain, _ *nft.Rule) {
		t.Helpers = append(t.Helpers, t.Helpers[0])
	},
	"name of 16 bytes: at most 15": func(t *nft.Table, _ *nft.Chain, _ *nft.Rule) {
		t.Helpers[0].Helper = strings.Repeat("x", 16)
	},
	"name is empty": func(t *nft.Table, _ *nft.Chain, _ *nft.Rule) { t.Helpers[0].Name = "" },
	"family ip or ip6": func(t *nft.Table, c *nft.Chain, r *nft.Rule) {
		policy(t, c, r)
		t.Family = nft.INet
	},
	`named "raw"`: func(t *nft.Table, c *nft.Chain, r *nft.Rule) {
		policy(t, c, r)
		t.Name = "t"
	},
	"is too late": func(t *nft.Table, c *nft.Chain, r *nft.Rule) {
		policy(t, c, r)
		c.Priority = 0
	},
	"needs a protocol": func(t *nft.Table, c *nft.Chain, r *nft.Rule) {
		policy(t, c, r)
		r.Proto = 0
	},
	"timeout policy: name of 32 bytes: at most 31": func(t *nft.Table, c *nft.Chain, r *nft.Rule) {
		policy(t, c, r)
		r.TimeoutPolicy = strings.Repeat("x", 32)
	},
}

// policy makes the rule assign a timeout policy instead.
func policy(_ *nft.Table, c *nft.Chain, r *nft.Rule) {
	c.Priority, r.Helper, r.TimeoutPolicy = nft.PriorityRaw, "", "p"
}

func TestMisassigned(t *testing.T) {
	for want, spoil := range misassigned {
		table := assigning("ftp")
		table.Family, table.Name = nft.IPv4, "raw"
		c := &table.Chains[0]
		spoil(&table, c, &c.Rules[0])
		if err := (&nft.Conn{}).Apply(t.Context(), table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
