package ban

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Journal is a Backend that bans by another one and keeps a file of what is in
// force: for reboots, which empty the kernel's tables, and for the evidence. A
// ban or its lifting is on the disk when the call returns without error. A
// program that is killed, or a machine that stops, leaves a file that the next
// OpenJournal reads: of a record that was being written it drops the part.
//
// A file belongs to one process at a time (flock(2)). Where files cannot be
// locked, two would spoil it.
type Journal struct {
	next Backend
	path string
	now  func() time.Time

	mu      sync.Mutex
	file    *os.File // nil once closed
	size    int64    // of the file's good part
	lines   int      // in the file
	active  map[netip.Prefix]Entry
	damaged int
}

var (
	_ Backend  = (*Journal)(nil)
	_ Checker  = (*Journal)(nil)
	_ Enforcer = (*Journal)(nil)
)

// OpenJournal reads the file, or makes it, mode 0600. It bans nobody: see
// Restore.
func OpenJournal(path string, next Backend) (_ *Journal, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ban: journal: %w", err)
	}
	j := &Journal{next: next, path: path, now: time.Now, file: file, active: make(map[netip.Prefix]Entry)}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	if err := lock(file); err != nil {
		return nil, fmt.Errorf("ban: journal %s: another process has it open: %w", path, err)
	}
	if err := j.read(); err != nil {
		return nil, fmt.Errorf("ban: journal %s: %w", path, err)
	}
	if err := syncDir(path); err != nil {
		return nil, fmt.Errorf("ban: journal %s: %w", path, err)
	}
	return j, nil
}

// read replays the file, and cuts off a last record that is not whole.
func (j *Journal) read() error {
	b, err := os.ReadFile(j.path)
	if err != nil {
		return err
	}
	for rest := b; len(rest) > 0; {
		line, after, whole := cutLine(rest)
		if !whole {
			break
		}
		rest = after
		j.size = int64(len(b) - len(rest))
		j.lines++
		r, err := decodeRecord(line)
		if err != nil {
			j.damaged++
			continue
		}
		j.apply(r)
	}
	if j.size == int64(len(b)) {
		return nil
	}
	return j.file.Truncate(j.size)
}

func (j *Journal) apply(r record) {
	if r.Op == opBan {
		j.active[r.Prefix] = r.entry()
	} else {
		delete(j.active, r.Prefix)
	}
}

// Damaged is how many records of the file could not be read, and were passed
// over. A last one that was not whole is not among them: it was never
// acknowledged.
func (j *Journal) Damaged() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.damaged
}

// Entries returns what is in force according to the file, by prefix.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forget()
	return slices.SortedFunc(maps.Values(j.active), func(a, b Entry) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
}

// Restore bans again what the file says is in force, each for the time that is
// left. What the other Backend refuses, such as a Guard whose mind has changed,
// is reported, and taken out of the file; what is protected now, and was banned
// all the time because the kernel kept it, is lifted.
func (j *Journal) Restore(ctx context.Context) error {
	entries := j.Entries()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.closed(); err != nil {
		return err
	}
	err := j.next.Ban(ctx, entries...)
	failed, all := Failed(err)
	if !all {
		return err
	}
	records := make([]record, 0, len(failed))
	for _, f := range failed {
		records = append(records, record{Op: opUnban, Prefix: f.Prefix})
	}
	return errors.Join(err, j.lift(ctx, failed), j.write(records))
}

// lift takes back what is protected, where the other Backend has kept it.
func (j *Journal) lift(ctx context.Context, failed []*EntryError) error {
	var guarded []netip.Prefix
	for _, f := range failed {
		if errors.Is(f, ErrGuarded) {
			guarded = append(guarded, f.Prefix)
		}
	}
	if len(guarded) == 0 {
		return nil
	}
	err := j.next.Unban(ctx, guarded...)
	if _, all := Failed(err); all { // those that are not in force
		return nil
	}
	return err
}

// Ban implements Backend. An entry that cannot be written to the file is in
// force all the same, and the error says so.
func (j *Journal) Ban(ctx context.Context, entries ...Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.closed(); err != nil {
		return err
	}
	err := j.next.Ban(ctx, entries...)
	failed, all := Failed(err)
	if !all {
		return err
	}
	bad := make(map[netip.Prefix]bool)
	for _, f := range failed {
		bad[f.Prefix] = true
	}
	now := j.now()
	var records []record
	for _, e := range entries {
		switch {
		case bad[e.Prefix]:
		case e.Until.Over(now):
			records = append(records, record{Op: opUnban, Prefix: e.Prefix})
		default:
			records = append(records, recordOf(e))
		}
	}
	return errors.Join(err, j.write(records))
}

// Unban implements Backend.
func (j *Journal) Unban(ctx context.Context, prefixes ...netip.Prefix) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.closed(); err != nil {
		return err
	}
	err := j.next.Unban(ctx, prefixes...)
	if _, all := Failed(err); !all {
		return err
	}
	var records []record
	for _, p := range prefixes {
		if _, ok := j.active[p]; ok {
			records = append(records, record{Op: opUnban, Prefix: p})
		}
	}
	return errors.Join(err, j.write(records))
}

// List implements Backend, with the reasons and the evidence of the file.
func (j *Journal) List(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range j.next.List(ctx) {
			if err == nil {
				e = j.annotated(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (j *Journal) annotated(e Entry) Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if known, ok := j.active[e.Prefix]; ok {
		e.Reason, e.Evidence = known.Reason, known.Evidence
	}
	return e
}

// Check implements Checker, as far as the other Backend does.
func (j *Journal) Check(ctx context.Context, entries ...Entry) error {
	return check(ctx, j.next, entries)
}

// Enforcing implements Enforcer, as far as the other Backend does.
func (j *Journal) Enforcing(ctx context.Context) error { return enforcing(ctx, j.next) }

// Close closes the file and the other Backend.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return j.next.Close()
	}
	err := j.file.Close()
	j.file = nil
	return errors.Join(err, j.next.Close())
}

func (j *Journal) closed() error {
	if j.file == nil {
		return fmt.Errorf("ban: journal %s: %w", j.path, net.ErrClosed)
	}
	return nil
}

// write appends records, waits until they are on the disk, and applies them.
func (j *Journal) write(records []record) error {
	if len(records) == 0 {
		return nil
	}
	if err := j.append(records); err != nil {
		// What is after the good part must not be followed by more.
		err = fmt.Errorf("ban: journal %s: %d changes are made and will not outlive a restart: %w", j.path, len(records), err)
		return errors.Join(err, j.file.Truncate(j.size))
	}
	for _, r := range records {
		j.apply(r)
	}
	j.lines += len(records)
	if j.forget(); j.lines > 1024+2*len(j.active) {
		return j.compact()
	}
	return nil
}

func (j *Journal) append(records []record) error {
	var b []byte
	for _, r := range records {
		var err error
		if b, err = r.append(b); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.size += int64(len(b))
	return nil
}

// forget drops the bans that are over.
func (j *Journal) forget() {
	now := j.now()
	maps.DeleteFunc(j.active, func(_ netip.Prefix, e Entry) bool { return e.Until.Over(now) })
}

// compact writes a file of what is in force, and puts it in place of the old
// one: at every moment one of the two is there, whole.
func (j *Journal) compact() error {
	fresh, err := j.fresh()
	if err != nil {
		return fmt.Errorf("ban: journal %s: compact: %w", j.path, err)
	}
	if err := os.Rename(fresh.file.Name(), j.path); err != nil {
		err = errors.Join(err, fresh.file.Close(), os.Remove(fresh.file.Name()))
		return fmt.Errorf("ban: journal %s: compact: %w", j.path, err)
	}
	old := j.file
	j.file, j.size, j.lines = fresh.file, fresh.size, fresh.lines
	if err := errors.Join(old.Close(), syncDir(j.path)); err != nil {
		return fmt.Errorf("ban: journal %s: compact: %w", j.path, err)
	}
	return nil
}

// fresh makes a file beside that of j, with what is in force.
func (j *Journal) fresh() (_ *Journal, err error) {
	f, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+".*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := lock(f); err != nil {
		return nil, err
	}
	var records []record
	for _, e := range j.active {
		records = append(records, recordOf(e))
	}
	n := &Journal{file: f, lines: len(records)}
	return n, n.append(records)
}
