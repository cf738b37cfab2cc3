package nft_test

import (
	_ "embed"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// listed are rules as nft(8) takes them, in its chains.
//
//go:embed testdata/rules.nft
var listed string

var handleLine = regexp.MustCompile(`^\t\t(.*) # handle (\d+)$`)

// unlike are the rules that are not written as by nft(8), and how they are: they
// have what nobody needs to know of a refusal.
var unlike = map[string]string{
	"numgen inc mod 2 0 accept":         "[numgen] 0 accept",
	"tcp option maxseg size 500 accept": "[exthdr 2,2,2] 62465 accept",
	"tcp option maxseg size set 1400":   "[exthdr]",
	"ip dscp cs1 accept":                "@nh,8,8 & 0xfc == 0x20 accept",
}

// TestTextAsTool has nft(8) load and list rules, and lists them without it.
func TestTextAsTool(t *testing.T) {
	lab.Tool(t, "nft")
	c, h := dial(t)
	load(t, h, listed)
	set, err := c.Ruleset(within(t))
	if err != nil {
		t.Fatal(err)
	}
	want := toolTexts(t, h)
	if v, err := h.Exec(within(t), "nft", "--version"); err != nil || !strings.Contains(string(v), "v1.0.6") {
		t.Skipf("compared with nft 1.0.6, whose words others have changed: this is %s, %v", v, err)
	}
	for ref, rule := range set.All() {
		key := ref.Family.String() + " " + ref.Table + " " + strconv.FormatUint(ref.Handle, 10)
		text := want[key]
		if ours, ok := unlike[text]; ok {
			text = ours
		}
		if got := rule.Text(); got != text {
			t.Errorf("%s:\ngot  %s\nwant %s", key, got, text)
		}
		delete(want, key)
	}
	for key, text := range want {
		t.Errorf("%s is missing: %s", key, text)
	}
}

// toolTexts are the rules as nft(8) lists them, by family, table and handle.
func toolTexts(t *testing.T, h *lab.Host) map[string]string {
	t.Helper()
	out, err := h.Exec(within(t), "nft", "-a", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	var table string
	inChain := false
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "table "); ok {
			table = strings.Join(strings.Fields(rest)[:2], " ")
		}
		if strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "\t\t") {
			inChain = strings.HasPrefix(line, "\tchain ")
		}
		if m := handleLine.FindStringSubmatch(line); m != nil && inChain {
			texts[table+" "+m[2]] = m[1]
		}
	}
	return texts
}
