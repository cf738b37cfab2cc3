package sockdiag

import (
	"strconv"
	"strings"
)

// FilterError is what is wrong with the text of a filter. It unwraps to the
// error of the look-up of a name, where that is the reason.
type FilterError struct {
	// Column is where in the text the token begins, in bytes, from 1.
	Column int
	// Token is the word or sign that does not fit; empty at the text's end.
	Token string
	// Problem says why, and Accepted what could stand there.
	Problem, Accepted string
	// Err is the error of a look-up, or nil.
	Err error
}

func (e *FilterError) Error() string {
	s := "sockdiag: filter: column " + strconv.Itoa(e.Column)
	if e.Token != "" {
		s += ": " + strconv.Quote(e.Token)
	}
	s += ": " + e.Problem
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Accepted != "" {
		s += "; accepted: " + e.Accepted
	}
	return s
}

// Unwrap returns Err.
func (e *FilterError) Unwrap() error { return e.Err }

// token is a word or a sign of a filter.
type token struct {
	text    string // without backslashes; empty at the end
	at      int    // offset in the text
	escaped bool   // it had a backslash: no keyword
}

// The signs, and the words that stand for them (ssfilter.y).
var signs = map[string]string{
	"(": "(", ")": ")",
	"!": "!", "not": "!",
	"&": "&", "&&": "&", "and": "&",
	"|": "|", "||": "|", "or": "|",
	"=": "=", "==": "=", "eq": "=",
	"!=": "!=", "ne": "!=", "neq": "!=",
	"<": "<", "lt": "<", "<=": "<=", "le": "<=", "leq": "<=",
	">": ">", "gt": ">", ">=": ">=", "ge": ">=", "geq": ">=",
}

// sign returns the sign the token stands for, or "".
func (t token) sign() string {
	if t.escaped {
		return ""
	}
	return signs[t.text]
}

// lexer cuts a filter into tokens. Words end at spaces and at signs, which need
// no spaces around them as they do in ss; a backslash takes from the next byte
// what it means.
type lexer struct {
	text string
	at   int
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isSign(c byte) bool { return strings.IndexByte("()!&|=<>", c) >= 0 }

// next takes a token.
func (l *lexer) next() token {
	l.skip()
	for n := min(2, len(l.text)-l.at); n > 0; n-- {
		if s := l.text[l.at : l.at+n]; isSign(s[0]) && signs[s] != "" {
			l.at += n
			return token{text: s, at: l.at - n}
		}
	}
	return l.word(func(c byte) bool { return isSpace(c) || isSign(c) })
}

// path takes a token that only a space ends.
func (l *lexer) path() token {
	l.skip()
	return l.word(isSpace)
}

func (l *lexer) skip() {
	for l.at < len(l.text) && isSpace(l.text[l.at]) {
		l.at++
	}
}

func (l *lexer) word(end func(byte) bool) token {
	t := token{at: l.at}
	var b []byte
	for ; l.at < len(l.text) && !end(l.text[l.at]); l.at++ {
		if l.text[l.at] == '\\' && l.at+1 < len(l.text) {
			t.escaped = true
			l.at++
		}
		b = append(b, l.text[l.at])
	}
	t.text = string(b)
	return t
}
