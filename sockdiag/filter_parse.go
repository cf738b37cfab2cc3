package sockdiag

import (
	"strings"
)

// ParseFilter reads a filter in the language of ss(8), names being those of
// this host: see Names.
//
//	dport = :443 and src 10.0.0.0/8
//	state established ( sport = :ssh or dport = :ssh ) and not dst 192.0.2.1
//
// The conditions:
//
//   - src, dst HOST, HOST:PORT, :PORT, [HOST6]:PORT: the address, of which a
//     prefix can be given (10.0.0.0/8, 10/8), and the port; * is any;
//   - src, dst inet:HOST, inet6:HOST: sockets of that family alone;
//   - sport, dport with =, !=, <, >, <=, >= (==, eq, ne, lt, gt, le, ge) and a
//     port, :443 or 443 or :https;
//   - dev NAME or INDEX, fwmark VALUE[/MASK], cgroup PATH, all with = or !=;
//   - autobound: see IsAutobound;
//   - state NAME, exclude NAME: as in ss, several in a row add up, and the
//     names can be all, connected, synchronized, bucket, big or that of a state;
//     other than in ss they can stand wherever a condition can;
//   - uid N, inode N, cookie N, and cgroup id:N for a cgroup's ID, which ss
//     does not have.
//
// They are joined by and (&, &&, or nothing), or (|, ||), not (!) and
// parentheses. As in ss, and binds no tighter than or: they are read from left
// to right, "a or b and c" being "( a or b ) and c"; not is of the next
// condition alone. Host names are not looked up, and an IPv6 address takes
// brackets or a prefix length. Expressions nest 1000 deep at most.
//
// The error is a *FilterError, which says where the text is wrong.
func ParseFilter(text string) (Filter, error) { return Names{}.ParseFilter(text) }

// ParseFilter reads a filter as the function of that name does, with names
// looked up by n.
func (n Names) ParseFilter(text string) (Filter, error) {
	p := &parser{names: n, lexer: lexer{text: text}}
	p.advance()
	if p.tok.text == "" {
		return Filter{}, nil
	}
	f := p.expression()
	if p.err == nil && p.tok.text != "" {
		p.fail(p.tok, "no condition begins here", conditionWords)
	}
	if p.err == nil && f.height() > maxNesting {
		p.err = &FilterError{Column: 1, Problem: tooDeep}
	}
	if p.err != nil {
		return Filter{}, p.err
	}
	return f, nil
}

const (
	conditionWords = "src, dst, sport, dport, dev, fwmark, cgroup, autobound, state, exclude, " +
		"uid, inode, cookie, not, ("
	maxNesting = 1000
	tooDeep    = "nested more than 1000 deep"
)

// height is how deep the text of f nests at most. Each change between and and or
// adds to it, as the text on the left becomes an operand.
func (f Filter) height() int {
	if f == (Filter{}) {
		return 0
	}
	e := f.h.Value()
	inner := 0
	switch e.kind {
	case kindNot:
		inner = e.head.height()
	case kindAnd, kindOr:
		for _, m := range f.appendList(nil, e.kind) {
			inner = max(inner, m.height())
		}
	}
	return inner + 1
}

// parser reads an expression by recursive descent. After an error the rest of
// the text is not looked at.
type parser struct {
	lexer
	names Names
	tok   token
	depth int
	err   *FilterError
}

func (p *parser) advance() { p.tok = p.next() }

func (p *parser) fail(t token, problem, accepted string) Filter {
	return p.failed(t, problem, accepted, nil)
}

func (p *parser) failed(t token, problem, accepted string, err error) Filter {
	if p.err == nil {
		if t.text == "" {
			problem = "the filter ends too early"
		}
		p.err = &FilterError{Column: t.at + 1, Token: t.text, Problem: problem, Accepted: accepted, Err: err}
	}
	p.at, p.tok = len(p.text), token{at: len(p.text)}
	return Filter{}
}

// expression reads conditions from left to right: exprlist of ssfilter.y.
func (p *parser) expression() Filter {
	members, joined := []Filter{p.condition()}, ""
	for p.err == nil && p.tok.text != "" && p.tok.sign() != ")" {
		sign := p.tok.sign()
		if sign == "&" || sign == "|" {
			p.advance()
		} else {
			sign = "&"
		}
		if joined != "" && sign != joined {
			members = []Filter{join(joined, members)}
		}
		members, joined = append(members, p.condition()), sign
	}
	return join(joined, members)
}

func join(sign string, members []Filter) Filter {
	if sign == "|" {
		return Or(members...)
	}
	return And(members...)
}

// condition reads one condition, its negation or an expression in parentheses.
func (p *parser) condition() Filter {
	if p.depth++; p.depth > maxNesting {
		return p.fail(p.tok, tooDeep, "")
	}
	defer func() { p.depth-- }()
	switch t := p.tok; t.sign() {
	case "!":
		p.advance()
		return Not(p.condition())
	case "(":
		p.advance()
		f := p.expression()
		if p.err == nil && p.tok.sign() != ")" {
			return p.fail(p.tok, "the parenthesis is not closed", ")")
		}
		p.advance()
		return f
	case "":
		return p.primary(t)
	default:
		return p.fail(t, "no condition begins so", conditionWords)
	}
}

// primary reads the condition that begins with word.
func (p *parser) primary(word token) Filter {
	name := word.text
	if word.escaped {
		name = ""
	}
	switch name {
	case "autobound":
		p.advance()
		return IsAutobound()
	case "state", "exclude", "excl":
		return p.states()
	case "sport", "dport":
		p.advance()
		return p.portCondition(name == "dport")
	case "cgroup":
		return p.cgroupCondition()
	case "src", "dst", "dev", "fwmark", "uid", "inode", "cookie":
		return p.valueCondition(name)
	}
	return p.fail(word, "no condition", conditionWords)
}

// valueCondition reads [=|!=] VALUE.
func (p *parser) valueCondition(name string) Filter {
	p.advance()
	equal := p.equality()
	f := p.value(name, p.tok)
	p.advance()
	if !equal {
		return Not(f)
	}
	return f
}

// value reads what a condition is compared with.
func (p *parser) value(word string, t token) Filter {
	if t.text == "" || t.sign() != "" {
		return p.fail(t, word+" takes a value", "")
	}
	switch word {
	case "src", "dst":
		return p.host(t, word == "dst")
	case "dev":
		return p.device(t)
	case "fwmark":
		return p.mark(t)
	case "uid":
		return OfUser(uint32(p.number(t, t.text, 32)))
	case "inode":
		return HasInode(uint32(p.number(t, t.text, 32)))
	}
	return HasCookie(p.number(t, t.text, 64))
}

// equality takes = or !=, or nothing, and reports whether it was not !=.
func (p *parser) equality() bool {
	switch sign := p.tok.sign(); sign {
	case "=", "!=":
		p.advance()
		return sign == "="
	case "<", ">", "<=", ">=":
		p.fail(p.tok, "only ports are compared so", "=, !=")
	}
	return true
}

func (p *parser) portCondition(remote bool) Filter {
	c := Equal
	for i, sign := range comparisonSigns {
		if p.tok.sign() == sign {
			c = Comparison(i)
			p.advance()
			break
		}
	}
	t := p.tok
	if t.text == "" || t.sign() != "" {
		return p.fail(t, "a port is missing", ":443, 443, :https")
	}
	port, one := p.port(t, strings.TrimPrefix(t.text, ":"))
	p.advance()
	switch {
	case one:
		return portFilter(remote, c, port)
	case c != Equal:
		return p.fail(t, "any port is compared with = alone", "")
	}
	return Filter{}
}

// states reads "state NAME" and "exclude NAME" as often as they follow each
// other: the first tells what the others add to or take from.
func (p *parser) states() Filter {
	var set StateSet
	for first := true; !p.tok.escaped; first = false {
		verb := p.tok.text
		if verb != "state" && verb != "exclude" && verb != "excl" {
			break
		}
		p.advance()
		named, ok := stateSet(p.tok)
		if !ok {
			return p.fail(p.tok, "no state", "all, connected, synchronized, bucket, big, "+
				"established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, time-wait, closed, close-wait, "+
				"last-ack, listening, closing, bound-inactive")
		}
		switch {
		case verb == "state":
			set |= named
		case first:
			set = allStates &^ named
		default:
			set &^= named
		}
		p.advance()
	}
	return InState(set)
}

func stateSet(t token) (StateSet, bool) {
	for _, w := range stateWords {
		if strings.EqualFold(t.text, w.word) {
			return w.set, true
		}
	}
	s, err := ParseState(t.text)
	if s == SynRecv || s == NewSynRecv {
		return pendingStates, true
	}
	return 1 << s, err == nil
}
