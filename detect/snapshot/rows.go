package snapshot

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// sockets yields those of TCP: detectors take them for such.
func (s *Snapshot) sockets(yield func(sockdiag.Socket, error) bool) {
	rows := read(s, []Kind{RecordedSockets, SSSockets, NetstatSockets, ProcSockets}, func(in io.Reader, kind Kind) (iter.Seq2[sockdiag.Socket, error], error) {
		if kind != RecordedSockets {
			return sockdiag.ReadSockets(in), nil
		}
		_, rows, err := sockdiag.Replay(in)
		return rows, err
	})
	for row, err := range rows {
		if err == nil && row.Protocol != 0 && row.Protocol != sockdiag.TCP {
			continue
		}
		if !yield(row, err) {
			return
		}
	}
}

// holders reads who has the sockets, where text of ss or netstat tells it along
// with inode numbers (-pe). They are as many as the sockets.
func (s *Snapshot) holders() error {
	lines := read(s, []Kind{SSSockets, NetstatSockets}, func(in io.Reader, _ Kind) (iter.Seq2[sockdiag.Line, error], error) {
		return sockdiag.ReadLines(in), nil
	})
	for l, err := range lines {
		if err != nil {
			return err
		}
		for _, p := range l.Processes {
			if l.Inode == 0 {
				break
			}
			if s.Host.Holders == nil {
				s.Host.Holders = make(map[uint32][]sockdiag.Holder)
			}
			holder := sockdiag.Holder{Process: sockdiag.Process{PID: p.PID, Command: p.Command}, FD: p.FD}
			s.Host.Holders[l.Inode] = append(s.Host.Holders[l.Inode], holder)
		}
	}
	return nil
}

func (s *Snapshot) flows(yield func(conntrack.Flow, error) bool) {
	read(s, []Kind{RecordedFlows, TextFlows}, func(in io.Reader, kind Kind) (iter.Seq2[conntrack.Flow, error], error) {
		if kind != RecordedFlows {
			return conntrack.ReadFlows(in), nil
		}
		_, rows, err := conntrack.Replay(in)
		return rows, err
	})(yield)
}

// read yields the rows of the files of some kinds, one file after the other.
func read[T any](s *Snapshot, kinds []Kind, parse func(io.Reader, Kind) (iter.Seq2[T, error], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, f := range s.of(kinds...) {
			if !readFile(s, f, parse, yield) {
				return
			}
		}
	}
}

// readFile yields the rows of a file, and reports whether to go on.
func readFile[T any](s *Snapshot, f File, parse func(io.Reader, Kind) (iter.Seq2[T, error], error), yield func(T, error) bool) bool {
	var none T
	fail := func(err error) bool {
		yield(none, fmt.Errorf("snapshot: %s: %w", f.Name, err))
		return false
	}
	in, _, err := open(s.dir, f.Name)
	if err != nil {
		return fail(err)
	}
	defer in.Close() //nolint:errcheck // only read from
	rows, err := parse(in, f.Kind)
	if err != nil {
		return fail(err)
	}
	skipped := Skipped{File: f.Name}
	defer func() { s.skipped[f.Name] = skipped }()
	for row, err := range rows {
		switch {
		case isParseError(err):
			if skipped.Lines++; skipped.Lines == 1 {
				skipped.First = err
			}
		case err != nil:
			return fail(err)
		case !yield(row, nil):
			return false
		}
	}
	return true
}

// isParseError tells a line that could not be read, after which reading goes
// on.
func isParseError(err error) bool {
	_, flow := errors.AsType[*conntrack.ParseError](err)
	_, socket := errors.AsType[*sockdiag.ParseError](err)
	return flow || socket
}
