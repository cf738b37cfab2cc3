package conntrack

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Replay reads what Record wrote, compressed or not: the info at once, the
// flows as they are asked for, once, in constant memory. A nil error goes with
// a flow; a non-nil one is the last, and an *OpError. That of a recording that
// ends too early is io.ErrUnexpectedEOF; that of a version this package does
// not know is errors.ErrUnsupported. Whoever met no error has all that was
// recorded.
func Replay(r io.Reader) (RecordInfo, iter.Seq2[Flow, error], error) {
	p, err := newReplayer(r)
	if err != nil {
		return RecordInfo{}, nil, &OpError{Op: "replay", Err: err}
	}
	var h recordHeader
	if err := p.next(&h); err != nil {
		return RecordInfo{}, nil, p.fail(err)
	}
	switch {
	case h.Format != recordFormat:
		return RecordInfo{}, nil, p.fail(fmt.Errorf("no recording of flows: its format is %q, not %q", h.Format, recordFormat))
	case h.Version != recordVersion:
		return RecordInfo{}, nil, p.fail(fmt.Errorf("version %d of the format, not %d: %w", h.Version, recordVersion, errors.ErrUnsupported))
	}
	return RecordInfo{h.Time, h.Host, h.Kernel, h.Duration, h.Duplicates}, p.flows, nil
}

// replayer reads a recording line by line.
type replayer struct {
	lines *bufio.Scanner
	line  int
}

func newReplayer(r io.Reader) (*replayer, error) {
	b := bufio.NewReader(r)
	magic, _ := b.Peek(2) // what is wrong, the next read tells
	var in io.Reader = b
	if string(magic) == "\x1f\x8b" { // RFC 1952
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		in = z
	}
	p := &replayer{lines: bufio.NewScanner(in)}
	p.lines.Buffer(nil, maxLine)
	return p, nil
}

// next reads a line into v; io.ErrUnexpectedEOF when there is none.
func (p *replayer) next(v any) error {
	p.line++
	if !p.lines.Scan() {
		if err := p.lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	err := json.Unmarshal(p.lines.Bytes(), v)
	if cut, ok := errors.AsType[*json.SyntaxError](err); ok && cut.Offset == int64(len(p.lines.Bytes())) {
		return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return jsonPlain(err)
}

func (p *replayer) fail(err error) error {
	return &OpError{Op: "replay", Err: fmt.Errorf("line %d: %w", p.line, err)}
}

func (p *replayer) flows(yield func(Flow, error) bool) {
	for n := int64(0); ; n++ {
		var l recordLine
		var f Flow
		err := p.next(&l)
		if err == nil && l.End != nil {
			if err = p.end(l.End, n); err == nil {
				return
			}
		} else if err == nil {
			err = l.into(&f, "")
		}
		if err != nil {
			yield(Flow{}, p.fail(err))
			return
		}
		if !yield(f, nil) {
			return
		}
	}
}

// end checks what the last line says, and that it is the last: only then has
// gzip compared its checksum.
func (p *replayer) end(end *recordEnd, flows int64) error {
	switch {
	case end.Error != "":
		return fmt.Errorf("recorded in part: %s", end.Error)
	case end.Flows != flows:
		return fmt.Errorf("%d flows, but %d were recorded: %w", flows, end.Flows, io.ErrUnexpectedEOF)
	case p.lines.Scan():
		p.line++
		return errors.New("goes on after its end")
	}
	return p.lines.Err()
}
