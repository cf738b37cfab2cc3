package conntrack

import (
	"strconv"
	"strings"
	"time"
)

// AppendText appends e as conntrack -E -o extended,id,timestamp,userspace
// writes it, without its delta-time= and a line end; ReadEvents reads it back.
// Values that are absent are left out. The error is always nil.
func (e Event) AppendText(b []byte) ([]byte, error) {
	return e.Append(b, LayoutFamily|LayoutID|LayoutAt|LayoutPort), nil
}

// String returns e as AppendText writes it.
func (e Event) String() string {
	b, _ := e.AppendText(nil)
	return string(b)
}

// Append appends e in the given layout.
func (e Event) Append(b []byte, layout Layout) []byte {
	if layout&LayoutAt != 0 && e.At > 0 {
		b = append(appendMicro(append(b, '['), e.At), "]\t"...)
	}
	word := e.Type.String()
	for range len("DESTROY") - len(word) {
		b = append(b, ' ')
	}
	b = append(append(append(b, '['), word...), "] "...)
	b = e.Flow.Append(b, layout)
	if layout&LayoutPort != 0 && e.Port != 0 {
		b = strconv.AppendUint(append(b, " [USERSPACE] portid="...), uint64(e.Port), 10)
	}
	return b
}

// appendMicro writes seconds and microseconds as the tool does: "%.8ld.%.6ld".
func appendMicro(b []byte, t Timestamp) []byte {
	sec, micro := int64(t/1e9), int64(t%1e9)/1000
	return appendZeros(append(appendZeros(b, sec, 8), '.'), micro, 6)
}

// appendZeros writes n of at least width digits.
func appendZeros(b []byte, n int64, width int) []byte {
	digits := strconv.FormatInt(n, 10)
	for range width - len(digits) {
		b = append(b, '0')
	}
	return append(b, digits...)
}

// ParseEvent reads one line, as ReadEvents does. The error is a *ParseError,
// and the Event then the zero Event.
func ParseEvent(line string) (Event, error) {
	p := parser{line: line}
	p.next()
	e := Event{At: p.instant()}
	e.Type = p.eventType()
	if err := p.entry(); err != nil {
		return Event{}, err
	}
	e.Flow, e.Port = p.flow, p.port
	return e, nil
}

func (p *parser) eventType() EventType {
	for _, t := range []EventType{EventNew, EventUpdate, EventDestroy} {
		if strings.Trim(p.tok, "[]") == t.String() {
			p.next()
			return t
		}
	}
	p.fail("want [NEW], [UPDATE] or [DESTROY]")
	return 0
}

// instant reads "[seconds.microseconds]" where it stands. Old versions
// of the tool pad the microseconds with blanks behind, not with zeros before
// them: they are a number all the same.
func (p *parser) instant() Timestamp {
	s, ok := strings.CutPrefix(strings.TrimSuffix(p.tok, "]"), "[")
	if !ok || s == "" || s[0] < '0' || s[0] > '9' {
		return 0
	}
	sec, micro, _ := strings.Cut(s, ".")
	seconds := p.parse(strings.TrimRight(sec, " "), 33) // to the year 2242
	micros := p.parse(strings.TrimRight(micro, " "), 20)
	if micros >= 1e6 {
		p.fail("want microseconds below 1000000")
	}
	p.next()
	return Timestamp(seconds*uint64(time.Second) + micros*uint64(time.Microsecond))
}
