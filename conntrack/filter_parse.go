package conntrack

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FilterError tells what is wrong with a filter expression.
type FilterError struct {
	Column int    // in bytes, from 1: where the fault begins
	Token  string // what stands there; empty at the end of the expression
	Msg    string // what is wrong with it
	Want   string // what is accepted
}

func (e *FilterError) Error() string {
	s := fmt.Sprintf("conntrack: filter: column %d: ", e.Column)
	if e.Token != "" {
		s += strconv.Quote(e.Token) + ": "
	}
	return s + e.Msg + " (accepted: " + e.Want + ")"
}

// ParseFilter reads an expression of conntrack(8)'s options:
//
//	-f ipv4 -p tcp -s 10.0.0.0/8 --dport 443 --state ESTABLISHED,TIME_WAIT -u ASSURED
//
// The empty expression is the zero Filter. Options and values stand apart by
// white space, or as --option=value. It takes
//
//	-f --family ipv4|ipv6             -p --proto tcp|17|…
//	-s --src, -d --dst                -r --reply-src, -q --reply-dst: addresses or prefixes
//	--sport, --dport                  --reply-port-src, --reply-port-dst: 80, 1000:2000, 1024:, :1023
//	--addr, --port                    one of the four: see Filter
//	--icmp-type, --icmp-code          --icmp-id
//	--state ESTABLISHED,TIME_WAIT     of TCP, or of SCTP with -p sctp; !CLOSE is all others
//	-u --status ASSURED,!DYING        UNREPLIED is !SEEN_REPLY
//	-m --mark 0x1/0xff                -w --zone, --orig-zone, --reply-zone
//	-l --label 1,7                    -t --timeout 30, 1h:, :30
//	--packets 10:, --bytes :1000      of both directions together
//	-n --src-nat [to]                 -g --dst-nat [to], -j --any-nat [to]
//	--helper ftp                      -i --id
//
// and conntrack(8)'s longer names. It differs from conntrack(8) in that without
// -f both families are meant, that -n and -g together mean both of them (-j is
// either), that ICMP queries do not count as translated because the answer has
// another type, and that -w takes the entry's zone whether it is of both
// directions or of one. The error is a *FilterError.
func ParseFilter(expr string) (Filter, error) {
	given, err := readOptions(expr)
	var f Filter
	for i := range given {
		if err == nil {
			err = given[i].apply(&f, given[:i])
		}
	}
	if err != nil {
		return Filter{}, err
	}
	return f, nil
}

// word is a word of the expression.
type word struct {
	text string
	at   int
}

func (w word) fail(msg, want string) error { return &FilterError{w.at + 1, w.text, msg, want} }

func words(s string) []word {
	var list []word
	for at := 0; at < len(s); {
		end := at
		for end < len(s) && !isBlank(s[end]) {
			end++
		}
		if end > at {
			list = append(list, word{s[at:end], at})
		}
		at = end + 1
	}
	return list
}

func isBlank(c byte) bool { return isSpace(c) || c == '\n' }

// given is an option with its value, which is empty if it was left out.
type given struct {
	*option
	name, value word
}

// readOptions reads the options in order, but protocols first: states depend on
// them.
func readOptions(expr string) ([]given, error) {
	var list []given
	left := words(expr)
	for len(left) > 0 {
		g := given{name: left[0]}
		left = left[1:]
		name, value, inOne := strings.Cut(g.name.text, "=")
		if g.option = findOption(name); g.option == nil {
			return nil, g.name.fail("no such option", optionNames())
		}
		switch {
		case inOne:
			g.value = word{value, g.name.at + len(name) + 1}
		case len(left) > 0 && !(g.bare && strings.HasPrefix(left[0].text, "-")):
			g.value, left = left[0], left[1:]
		default:
			g.value.at = len(expr)
		}
		if g.value.text == "" && (inOne || !g.bare) {
			return nil, g.value.fail(name+" wants a value", g.takes)
		}
		g.name.text = name
		list = append(list, g)
	}
	slices.SortStableFunc(list, func(a, b given) int { return cmp.Compare(a.order(), b.order()) })
	return list, nil
}

func (g given) order() int {
	if g.option.name() == "-p" {
		return 0
	}
	return 1
}

func findOption(name string) *option {
	for i := range options {
		if slices.Contains(strings.Fields(options[i].names), name) {
			return &options[i]
		}
	}
	return nil
}

func optionNames() string {
	var names []string
	for i := range options {
		names = append(names, strings.ReplaceAll(options[i].names, " ", ", "))
	}
	return strings.Join(names, ", ")
}

// apply sets the option's part of f.
func (g given) apply(f *Filter, before []given) error {
	again := func(b given) bool { return b.option == g.option }
	if !g.many && slices.ContainsFunc(before, again) {
		return g.name.fail("is given twice", "one "+g.option.name())
	}
	if err := g.parse(f, g.value.text); err != nil {
		return g.value.fail(err.Error(), g.takes)
	}
	return nil
}
