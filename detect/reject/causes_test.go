package reject

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// causeCase is a case that a row is made for, what it mentions, and its near
// misses.
type causeCase struct {
	rule       string
	cause      Cause
	confidence detect.Confidence
	seen       seen
	mentions   []string
	misses     []miss
}

// causeTable has a case for each row. Where a row can be certain, it is.
var causeTable = slices.Concat(strayCases, knownCases)

func counted(c conntrack.Stats) *Counters { return &Counters{Window: time.Minute, Conntrack: c} }

func full(count uint64) *conntrack.Usage {
	return &conntrack.Usage{Count: count, Max: 1000, Buckets: 100, Fields: conntrack.UsageMax | conntrack.UsageBuckets}
}

func load(state sockdiag.State, idle bool) *Load {
	return &Load{Source: netip.MustParsePrefix("192.0.2.7/32"), State: state, Count: 684, Limit: 60, Idle: idle, Descriptors: 1000, Allowed: 1024}
}

// miss is the same symptom with another cause: one thing differs.
type miss struct {
	name   string
	change func(*seen)
	rule   string
}

func TestCauses(t *testing.T) {
	for _, tt := range causeTable {
		t.Run(tt.rule, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				v := explainTwice(t, tt.seen.evidence(t, f))
				if v.Rule != tt.rule || v.Cause != tt.cause || v.Confidence != tt.confidence {
					t.Errorf("got %s %v", v.Rule, v)
				}
				var words []string
				for _, w := range tt.mentions {
					words = append(words, f(w))
				}
				all := v.Text()
				if lack := lacking(all, words); len(lack) > 0 {
					t.Errorf("no word of %q in:\n%s", lack, all)
				}
				for _, m := range tt.misses {
					s := tt.seen
					m.change(&s)
					if v := explainTwice(t, s.evidence(t, f)); v.Rule != m.rule {
						t.Errorf("but %s: got %q %v, want %q", m.name, v.Rule, v, m.rule)
					}
				}
			})
			others := slices.DeleteFunc(slices.Clone(tt.misses), func(m miss) bool { return m.rule == tt.rule })
			if len(others) < 2 {
				t.Errorf("%d near misses", len(others))
			}
		})
	}
}

// Neighbour discovery is of IPv6 alone.
func TestExplainDiscovery(t *testing.T) {
	for _, tt := range []struct {
		seen seen
		rule string
	}{
		{seen{packet: "in icmp 135", how: Logged, state: Untracked}, "C32"},
		{seen{packet: "in icmp 135", how: Logged}, "C32"},
		{seen{packet: "in icmp 8", how: Logged, state: Untracked}, "C23"},
		{seen{packet: "in icmp 8", how: Logged, state: New, entry: "-"}, "C19"},
		{seen{packet: "in udp", how: Logged, state: Untracked}, "C23"},
	} {
		v := explainTwice(t, tt.seen.evidence(t, toIPv6.Replace))
		if v.Rule != tt.rule || len(v.Fix) == 0 || v.Rule == "C32" && v.Cause != CauseDiscovery {
			t.Errorf("%s: %q %v, want %s", tt.seen.packet, v.Rule, v, tt.rule)
		}
	}
}
