package record

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Read reads what Write wrote, compressed or not: the info at once, the rows as
// they are asked for, once. A nil error goes with a row; a non-nil one is the
// last, and names the line. That of a recording that ends too early is
// io.ErrUnexpectedEOF; that of another version is errors.ErrUnsupported. Whoever
// met no error has all that was recorded.
func Read[T any](r io.Reader, f Format) (Info, iter.Seq2[T, error], error) {
	p, err := newReader(r, f)
	if err != nil {
		return Info{}, nil, err
	}
	var h header
	err = p.next(&h)
	switch {
	case err != nil:
	case h.Format != f.Name:
		err = fmt.Errorf("no recording of %s: its format is %q, not %q", f.Rows, h.Format, f.Name)
	case h.Version != f.Version:
		err = fmt.Errorf("version %d of the format, not %d: %w", h.Version, f.Version, errors.ErrUnsupported)
	}
	if err != nil {
		return Info{}, nil, p.fail(err)
	}
	info := Info{h.Time, h.Host, h.Kernel, h.Duration, h.Duplicates}
	return info, func(yield func(T, error) bool) { rows(p, yield) }, nil
}

// reader reads a recording line by line.
type reader struct {
	f     Format
	lines *bufio.Scanner
	line  int
}

func newReader(r io.Reader, f Format) (*reader, error) {
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
	p := &reader{f: f, lines: bufio.NewScanner(in)}
	p.lines.Buffer(nil, maxLine)
	return p, nil
}

// scan goes to the next line; io.ErrUnexpectedEOF when there is none.
func (p *reader) scan() error {
	p.line++
	if p.lines.Scan() {
		return nil
	}
	if err := p.lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// decode reads the line into v.
func (p *reader) decode(v any) error {
	b := p.lines.Bytes()
	err := json.Unmarshal(b, v)
	if cut, ok := errors.AsType[*json.SyntaxError](err); ok && cut.Offset == int64(len(b)) {
		return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return err
}

func (p *reader) next(v any) error {
	if err := p.scan(); err != nil {
		return err
	}
	return p.decode(v)
}

func (p *reader) fail(err error) error { return fmt.Errorf("line %d: %w", p.line, err) }

func rows[T any](p *reader, yield func(T, error) bool) {
	for n := int64(0); ; n++ {
		var row T
		err := p.scan()
		if err == nil && bytes.HasPrefix(p.lines.Bytes(), []byte(`{"end":`)) {
			if err = p.end(n); err == nil {
				return
			}
		} else if err == nil {
			err = p.decode(&row)
		}
		if err != nil {
			var none T
			yield(none, p.fail(err))
			return
		}
		if !yield(row, nil) {
			return
		}
	}
}

// end checks what the last line says, and that it is the last: only then has
// gzip compared its checksum.
func (p *reader) end(rows int64) error {
	var last struct{ End map[string]any }
	if err := p.decode(&last); err != nil {
		return err
	}
	recorded, counted := last.End[p.f.Rows].(float64)
	switch broken, ok := last.End["error"]; {
	case ok:
		return fmt.Errorf("recorded in part: %v", broken)
	case !counted || recorded != float64(rows):
		return fmt.Errorf("%d %s, but %v were recorded: %w", rows, p.f.Rows, last.End[p.f.Rows], io.ErrUnexpectedEOF)
	case p.lines.Scan():
		p.line++
		return errors.New("goes on after its end")
	}
	return p.lines.Err()
}
