package incidents

import (
	"context"

	"github.com/connsleuth/connsleuth/internal/nft"
)

// group is the NFLOG group of the hosts' firewalls.
const group = 50

// wall is a firewall. It lets in what belongs to a connection and what it
// allows, and nothing else: the rest is logged with its state and refused. ICMP
// errors are logged on their way in and out.
type wall struct {
	hook   nft.Hook // zero is nft.Input; nft.Forward makes it a router's
	first  []nft.Rule
	allow  []nft.Rule  // after established and related
	refuse nft.Verdict // zero is nft.RejectAdminProhibited
	extra  []nft.Chain
	helper string // of the control connections that the rules give it
}

// What the counters of a wall's rules count.
const (
	passed  = "passed"
	refused = "refused"
)

// opens are rules that let new TCP connections to the ports in.
func opens(ports ...uint16) []nft.Rule {
	var rules []nft.Rule
	for _, p := range ports {
		rules = append(rules, nft.Rule{CTState: nft.New, Proto: nft.TCP, DstPort: p,
			TCPFlags: nft.TCPFlags{Mask: nft.FIN | nft.SYN | nft.RST | nft.ACK, Value: nft.SYN},
			Counter:  true, Comment: passed, Verdict: nft.Accept})
	}
	return rules
}

func logAs(prefix string) *nft.Log { return &nft.Log{Group: group, Prefix: prefix} }

// firewall lets in new connections to the ports.
func (h *host) firewall(ctx context.Context, ports ...uint16) error {
	return h.raise(ctx, wall{allow: opens(ports...)})
}

// raise puts the wall up in the place of the host's former one.
func (h *host) raise(ctx context.Context, w wall) error {
	errors := []nft.Rule{{Proto: nft.ICMP, Log: logAs("icmp ")}, {Proto: nft.ICMPv6, Log: logAs("icmp ")}}
	if w.hook == 0 {
		w.hook = nft.Input
		w.first = append(append([]nft.Rule{{InIface: "lo", Verdict: nft.Accept}}, errors...), w.first...)
	}
	if w.refuse == nft.Continue {
		w.refuse = nft.RejectAdminProhibited
	}
	rules := append(w.first, nft.Rule{CTState: nft.Established | nft.Related, Counter: true, Comment: passed, Verdict: nft.Accept})
	rules = append(append(rules, w.allow...),
		nft.Rule{CTState: nft.Invalid, Log: logAs("invalid ")},
		nft.Rule{CTState: nft.Untracked, Log: logAs("untracked ")},
		nft.Rule{CTState: nft.New, Log: logAs("new ")},
		nft.Rule{Counter: true, Comment: refused, Verdict: w.refuse})
	t := nft.Table{Family: nft.INet, Name: "filter", Chains: append([]nft.Chain{
		{Name: w.hook.String(), Hook: w.hook, Rules: rules},
		{Name: "output", Hook: nft.Output, Rules: errors},
	}, w.extra...)}
	if h.installs {
		for i := range t.Chains {
			t.Chains[i].Rules = silenced(t.Chains[i].Rules)
		}
	}
	if w.helper != "" {
		t.Helpers = []nft.CTHelper{{Name: w.helper, Helper: w.helper, Proto: nft.TCP}}
	}
	return h.Rules(ctx, t)
}

// silenced are the rules without logging.
func silenced(rules []nft.Rule) (out []nft.Rule) {
	for _, r := range rules {
		only := r.Log != nil && r.Verdict == nft.Continue
		if r.Log = nil; !only {
			out = append(out, r)
		}
	}
	return out
}

// counted returns how many packets the wall let pass, and refused.
func (h *host) counted(ctx context.Context) (in, out uint64, err error) {
	for _, hook := range []nft.Hook{nft.Input, nft.Forward} {
		counters, e := h.Counters(ctx, nft.INet, "filter", hook.String())
		if e != nil {
			err = e
			continue
		}
		for _, c := range counters {
			switch c.Comment {
			case passed:
				in += c.Packets
			case refused:
				out += c.Packets
			}
		}
		return in, out, nil
	}
	return 0, 0, err
}
