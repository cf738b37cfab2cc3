package reject

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// eachCase calls test with the evidence of every case of the tables, of IPv4.
func eachCase(t *testing.T, test func(name string, e Evidence)) {
	t.Helper()
	for _, tt := range verdictTable {
		test(tt.rule+", "+tt.name, tt.seen.evidence(t, same))
	}
	for _, tt := range causeTable {
		test(tt.rule, tt.seen.evidence(t, same))
		for _, m := range tt.misses {
			s := tt.seen
			m.change(&s)
			test(tt.rule+", but "+m.name, s.evidence(t, same))
		}
	}
}

var (
	quoted  = regexp.MustCompile("`([^`]*)`")
	command = regexp.MustCompile(`^(conntrack|ethtool|ip|ipset|iptables-legacy-save|journalctl|nc|nft|nstat|prlimit|ps|ss|sysctl|tcpdump|tracepath|traceroute)( |$)`)
	// setting is a sysctl, and statement a part of a rule or of another
	// configuration.
	settingName = regexp.MustCompile(`^(net\.|nf_conntrack_)[a-z0-9_.]+$`)
	statement   = regexp.MustCompile(`^(add |ct |exthdr |icmp |icmpv6 |ip |ip6 |masquerade |notrack$|reject |tcp |udp |type |options |-F$|-j |-m |-t |--random-fully$)`)
)

// What is advised looks like something that can be done.
func TestAdvice(t *testing.T) {
	eachCase(t, func(name string, e Evidence) {
		v := Explain(e)
		if v.Rule != "" && len(v.Fix) == 0 || v.Confidence < detect.Certain && v.Decide == "" {
			t.Errorf("%s: fix %q, decide by %q", name, v.Fix, v.Decide)
		}
		if len(v.Facts) == 0 && e.Packet.Result == Present {
			t.Errorf("%s: no facts", name)
		}
		if v.Decide != "" && !command.MatchString(v.Decide) {
			t.Errorf("%s: decide by %q", name, v.Decide)
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.Join(v.Fix, "\n"), -1) {
			if s := m[1]; !command.MatchString(s) && !settingName.MatchString(s) && !statement.MatchString(s) {
				t.Errorf("%s: %q is no command, setting or statement", name, s)
			}
		}
		for _, text := range slices.Concat(v.Fix, v.Facts, v.Missing, []string{v.Summary, v.Decide}) {
			if strings.ContainsAny(text, "\n\t") || strings.Count(text, "`")%2 != 0 || strings.Contains(text, "%!") {
				t.Errorf("%s: %q", name, text)
			}
		}
	})
}

// undecided is the evidence without what the kernel itself said of the event.
func undecided(e Evidence) Evidence {
	e.Reason, e.Ended, e.Rule, e.Counters = "", Lookup[Ended]{}, Lookup[Rule]{}, Lookup[Counters]{}
	e.Load.Value.Descriptors = 0
	return e
}

// decisions take one of them away each.
var decisions = []func(*Evidence){
	func(e *Evidence) { e.Reason = "" },
	func(e *Evidence) { e.Ended = Lookup[Ended]{} },
	func(e *Evidence) { e.Rule = Lookup[Rule]{} },
	func(e *Evidence) { e.Counters = Lookup[Counters]{} },
	func(e *Evidence) { e.Load.Value.Descriptors = 0 },
}

// certainOnlyWhen wants a certain verdict to rest on the kernel's word.
func certainOnlyWhen(t *testing.T, name string, e Evidence) (certain bool) {
	t.Helper()
	v := Explain(e)
	if w := Explain(undecided(e)); w.Confidence == detect.Certain {
		t.Errorf("%s: certain without the kernel's word: %v", name, w)
	}
	if v.Confidence != detect.Certain {
		return false
	}
	for _, take := range decisions {
		less := e
		if take(&less); Explain(less).Confidence < detect.Certain || Explain(less).Cause != v.Cause {
			return true
		}
	}
	// Two of them say the same: both have to go.
	if w := Explain(undecided(e)); w.Confidence >= v.Confidence {
		t.Errorf("%s: nothing lowers %v", name, v)
	}
	return true
}

func TestCertainOnlyWhen(t *testing.T) {
	if testing.Short() {
		t.Skip("depends on no kernel, and takes long")
	}
	n := 0
	count := func(name string, e Evidence) {
		if certainOnlyWhen(t, name, e) {
			n++
		}
	}
	eachCase(t, count)
	if n < 40 {
		t.Errorf("%d certain cases", n)
	}
	n = 0
	r := rand.New(rand.NewPCG(6, 28))
	for range 3000 {
		count("generated", generated(t, r))
	}
	if n < 500 {
		t.Errorf("%d certain of the generated", n)
	}
}

// generated is evidence whose parts are those of one case, some of them of
// another.
func generated(t *testing.T, r *rand.Rand) Evidence {
	t.Helper()
	pick := func() *seen {
		tt := causeTable[r.IntN(len(causeTable))]
		s := tt.seen
		if n := r.IntN(len(tt.misses) + 1); n > 0 {
			tt.misses[n-1].change(&s)
		}
		return &s
	}
	s := *pick()
	for range r.IntN(4) {
		switch o := pick(); r.IntN(12) {
		case 0:
			s.reason, s.state = o.reason, o.state
		case 1:
			s.entry = o.entry
		case 2:
			s.ended, s.by = o.ended, o.by
		case 3:
			s.socket = o.socket
		case 4:
			s.hook, s.local = o.hook, o.local
		case 5:
			s.elsewhere, s.control = o.elsewhere, o.control
		case 6:
			s.rule = o.rule
		case 7:
			s.rules = o.rules
		case 8:
			s.counters, s.usage, s.load = o.counters, o.usage, o.load
		case 9:
			s.packet = o.packet
		case 10:
			s.how, s.icmp = o.how, o.icmp
		case 11:
			s.listen, s.listened = o.listen, o.listened
		}
	}
	if s.packet == "in icmp 3" {
		s.packet = ""
	}
	return s.evidence(t, same)
}

// TestOrder lists the rows that cases of the tables fit together, the winner
// first.
func TestOrder(t *testing.T) {
	pairs := make(map[string]bool)
	eachCase(t, func(_ string, e Evidence) {
		all := ExplainAll(e)
		if v := Explain(e); len(all) == 0 && v.Rule != "" || len(all) > 0 && all[0].Rule != v.Rule {
			t.Errorf("%v first of %v", v, all)
		}
		for i := range all[min(1, len(all)):] {
			pairs[all[0].Rule+" before "+all[i+1].Rule] = true
		}
	})
	var got []string
	for p := range pairs {
		got = append(got, p)
	}
	slices.Sort(got)
	if text := strings.Join(got, "\n") + "\n"; text != overlaps {
		t.Errorf("got\n%s", text)
	}
}

const overlaps = `C02 before C01
C02 before C20
C02 before C36
C03 before C01
C03 before C02
C04 before C01
C05 before C06
C05 before C34
C06 before C34
C14 before C07
C14 before C15
C14 before C16
C14 before C17
C14 before C18
C14 before C20
C14 before C34
C14 before C36
C15 before C34
C16 before C34
C17 before C18
C21 before C19
C25 before C26
C25 before C28
C25 before C29
C28 before C26
C29 before C26
C30 before C19
C30 before C31
C31 before C19
C33 before C23
C36 before C20
S1 before C27
S1 before S2
S1 before S3
S1 before S4
`

func TestValidFlags(t *testing.T) {
	valid := 0
	for f := packet.TCPFlags(0); ; f++ {
		if validFlags(f) {
			valid++
		}
		if f == 255 {
			break
		}
	}
	// Nine combinations, each with any of PSH, ECE and CWR.
	if valid != 9*8 || validFlags(packet.FIN) || !validFlags(packet.RST|packet.PSH) {
		t.Errorf("%d are valid", valid)
	}
}
