package conntrack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Stats are the tracker's counters of one CPU in one network namespace (struct
// ip_conntrack_stat), or of several added up: see Total. They count since the
// namespace was made, in 32 bits that wrap: what happened between two readings
// is told by Sub. It is comparable.
type Stats struct {
	// CPU is the processor's number; -1 for a Total.
	CPU int
	// Fields says which of the counters the kernel has.
	Fields StatFields

	// Found counts the searches for a free port or address by NAT that met one
	// in use. Before Linux 4.9 it counted look-ups that found an entry.
	Found uint64
	// Invalid counts packets that fit no entry and cannot begin one, or are
	// out of a TCP window or state: ct state invalid.
	Invalid uint64
	// Insert counts entries that were put into the table by request, such as
	// Create; before Linux 4.9 also those that packets make.
	Insert uint64
	// InsertFailed counts new entries that could not be put into the table,
	// and whose packet was dropped: its reply tuple was taken meanwhile, as two
	// connections got the same port by source NAT or one client sent twice from
	// one port; or its hash chain was too long.
	InsertFailed uint64
	// Drop counts packets dropped for want of an entry: the table was full and
	// nothing could be dropped early, there was no memory, or InsertFailed.
	Drop uint64
	// EarlyDrop counts entries that were not Assured and had to go because the
	// table was full: connections were lost.
	EarlyDrop uint64
	// Error counts ICMP and ICMPv6 packets that could not be tracked: a bad
	// checksum, cut short, or an error message about no known connection.
	Error uint64
	// SearchRestart counts look-ups begun anew because an entry moved to
	// another hash chain meanwhile: harmless.
	SearchRestart uint64
	// ClashResolve counts packets of one new connection that raced each other,
	// such as the two DNS queries of one socket, and were both let through
	// (Linux 5.10).
	ClashResolve uint64
	// ChainTooLong counts new entries refused because their hash chain was too
	// long: the table has too few buckets, or somebody aims at one (Linux
	// 5.15).
	ChainTooLong uint64

	// ExpectNew counts connections that met an expectation, ExpectCreate the
	// expectations made and ExpectDelete those that went.
	ExpectNew, ExpectCreate, ExpectDelete uint64

	// Counters of old kernels: look-ups, packets that began an entry, packets
	// not tracked on purpose, entries that went and entries taken off a list.
	// Linux 4.9 stopped counting all but Ignore, and 5.10 that.
	Searched, New, Ignore, Delete, DeleteList uint64
}

// StatFields is a set of the counters of Stats.
type StatFields uint32

// The counters, in the order in which conntrack -S writes them.
const (
	StatFound StatFields = 1 << iota
	StatInvalid
	StatInsert
	StatInsertFailed
	StatDrop
	StatEarlyDrop
	StatError
	StatSearchRestart
	StatClashResolve
	StatChainTooLong
	StatExpectNew
	StatExpectCreate
	StatExpectDelete
	StatSearched
	StatNew
	StatIgnore
	StatDelete
	StatDeleteList
)

// statCounter is one of the counters: its word in conntrack -S, its column in
// /proc/net/stat/nf_conntrack, and its attribute, of enum ctattr_stats_cpu or,
// where it begins with expect, enum ctattr_expect_stats.
type statCounter struct {
	word, column string
	attr         uint16
	ptr          func(*Stats) *uint64
}

// statCounters stand in the order of StatFields.
var statCounters = [...]statCounter{
	{"found", "found", 2, func(s *Stats) *uint64 { return &s.Found }},                                        // CTA_STATS_FOUND
	{"invalid", "invalid", 4, func(s *Stats) *uint64 { return &s.Invalid }},                                  // CTA_STATS_INVALID
	{"insert", "insert", 8, func(s *Stats) *uint64 { return &s.Insert }},                                     // CTA_STATS_INSERT
	{"insert_failed", "insert_failed", 9, func(s *Stats) *uint64 { return &s.InsertFailed }},                 // CTA_STATS_INSERT_FAILED
	{"drop", "drop", 10, func(s *Stats) *uint64 { return &s.Drop }},                                          // CTA_STATS_DROP
	{"early_drop", "early_drop", 11, func(s *Stats) *uint64 { return &s.EarlyDrop }},                         // CTA_STATS_EARLY_DROP
	{"error", "icmp_error", 12, func(s *Stats) *uint64 { return &s.Error }},                                  // CTA_STATS_ERROR
	{"search_restart", "search_restart", 13, func(s *Stats) *uint64 { return &s.SearchRestart }},             // CTA_STATS_SEARCH_RESTART
	{"clash_resolve", "clashres", 14, func(s *Stats) *uint64 { return &s.ClashResolve }},                     // CTA_STATS_CLASH_RESOLVE
	{"chaintoolong", "chainlength", 15, func(s *Stats) *uint64 { return &s.ChainTooLong }},                   // CTA_STATS_CHAIN_TOOLONG
	{"expect_new", "expect_new", ctaExpectStat | 1, func(s *Stats) *uint64 { return &s.ExpectNew }},          // CTA_STATS_EXP_NEW
	{"expect_create", "expect_create", ctaExpectStat | 2, func(s *Stats) *uint64 { return &s.ExpectCreate }}, // CTA_STATS_EXP_CREATE
	{"expect_delete", "expect_delete", ctaExpectStat | 3, func(s *Stats) *uint64 { return &s.ExpectDelete }}, // CTA_STATS_EXP_DELETE
	{"searched", "searched", 1, func(s *Stats) *uint64 { return &s.Searched }},                               // CTA_STATS_SEARCHED
	{"new", "new", 3, func(s *Stats) *uint64 { return &s.New }},                                              // CTA_STATS_NEW
	{"ignore", "ignore", 5, func(s *Stats) *uint64 { return &s.Ignore }},                                     // CTA_STATS_IGNORE
	{"delete", "delete", 6, func(s *Stats) *uint64 { return &s.Delete }},                                     // CTA_STATS_DELETE
	{"delete_list", "delete_list", 7, func(s *Stats) *uint64 { return &s.DeleteList }},                       // CTA_STATS_DELETE_LIST
}

const (
	opGetStatsCPU = 4 // IPCTNL_MSG_CT_GET_STATS_CPU

	// ctaExpectStat marks the attributes of the other dump.
	ctaExpectStat = 0x8000

	statsObsolete = StatSearched | StatNew | StatIgnore | StatDelete | StatDeleteList
)

// Has reports whether the kernel has all of the counters.
func (s Stats) Has(fields StatFields) bool { return s.Fields&fields == fields }

// Sub returns what was counted since an earlier reading of the same CPU, or of
// the Total. It is right across a wrap, for up to 2^32-1 of a kind. Counters
// that either lacks are left out.
func (s Stats) Sub(earlier Stats) Stats {
	d := Stats{CPU: s.CPU, Fields: s.Fields & earlier.Fields}
	for i, c := range statCounters {
		if d.Fields&(1<<i) != 0 {
			*c.ptr(&d) = uint64(uint32(*c.ptr(&s)) - uint32(*c.ptr(&earlier)))
		}
	}
	return d
}

// Total adds the counters of all CPUs up.
func Total(cpus []Stats) Stats {
	t := Stats{CPU: -1}
	for _, s := range cpus {
		t.Fields |= s.Fields
		for _, c := range statCounters {
			*c.ptr(&t) += *c.ptr(&s)
		}
	}
	return t
}

// String returns the counters as conntrack -S writes them, with those of
// expectations behind.
func (s Stats) String() string {
	var b []byte
	if s.CPU >= 0 {
		b = fmt.Appendf(b, "cpu=%d ", s.CPU)
	}
	for i, c := range statCounters {
		if s.Fields&(1<<i) != 0 {
			b = append(appendKey(b, c.word+"=", *c.ptr(&s), true), ' ')
		}
	}
	return string(bytes.TrimSuffix(b, []byte(" ")))
}

// Stats returns the counters of each CPU, in the order of their numbers.
func (c *Conn) Stats(ctx context.Context) ([]Stats, error) {
	var cpus []Stats
	for _, dump := range []struct {
		subsystem, op uint8
		kind          uint16
	}{{subsystem, opGetStatsCPU, 0}, {subsystemExpect, opExpectGetStatsCPU, ctaExpectStat}} {
		for m, err := range c.nl.Dump(ctx, nfnl.NewNetfilter(dump.subsystem, dump.op, 0, familyUnspec).Message()) {
			if err == nil {
				cpus, err = addStats(cpus, m.Data, dump.kind)
			}
			if err != nil {
				return nil, opError("stats", err)
			}
		}
	}
	return cpus, nil
}

// addStats reads a message into the row of its CPU.
func addStats(cpus []Stats, b []byte, kind uint16) ([]Stats, error) {
	if len(b) < nfgenmsgLen {
		return nil, errShort
	}
	cpu := int(binary.BigEndian.Uint16(b[2:])) // nfgenmsg.res_id
	i, found := slices.BinarySearchFunc(cpus, cpu, func(s Stats, cpu int) int { return s.CPU - cpu })
	if !found {
		cpus = slices.Insert(cpus, i, Stats{CPU: cpu})
	}
	return cpus, cpus[i].decode(b[nfgenmsgLen:], kind)
}

func (s *Stats) decode(b []byte, kind uint16) error {
	a := nfnl.Walk(b)
	for a.Next() {
		for i, c := range statCounters {
			if c.attr == a.Type|kind {
				*c.ptr(s) = uint64(a.U32())
				s.Fields |= 1 << i
			}
		}
	}
	return a.Err()
}

// ReadStats reads the same from net/stat/nf_conntrack of a /proc file system:
// ReadStats(os.DirFS("/proc")). It takes no privilege. Its columns are known by
// their names: kernels gave the places of old counters to new ones. The rows
// have no numbers: CPU is their place, which is the number unless numbers below
// that of a possible CPU are missing.
func ReadStats(proc fs.FS) ([]Stats, error) {
	const path = "net/stat/nf_conntrack"
	b, err := fs.ReadFile(proc, path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (modprobe nf_conntrack)", err)
	}
	if err != nil {
		return nil, opError("stats", err)
	}
	cpus, err := parseStats(string(b))
	if err != nil {
		return nil, opError("stats", fmt.Errorf("%s: %w", path, err))
	}
	return cpus, nil
}

func parseStats(text string) ([]Stats, error) {
	var cpus []Stats
	var columns []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case columns == nil:
			columns = words
		case len(words) != len(columns):
			return nil, fmt.Errorf("line %d: %d columns, want %d", len(cpus)+2, len(words), len(columns))
		default:
			s, err := parseStatsRow(columns, words)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", len(cpus)+2, err)
			}
			s.CPU = len(cpus)
			cpus = append(cpus, s)
		}
	}
	if !slices.Contains(columns, "insert_failed") {
		return nil, errors.New("no line of column names")
	}
	return cpus, nil
}

// parseStatsRow reads one row, of hexadecimal numbers. Kernels that have
// clashres write zeros for what they do not count any more.
func parseStatsRow(columns, words []string) (Stats, error) {
	var s Stats
	for n, column := range columns {
		for i, c := range statCounters {
			if c.column != column {
				continue
			}
			v, err := strconv.ParseUint(words[n], 16, 32)
			if err != nil {
				return Stats{}, fmt.Errorf("%s: %q is not a hexadecimal number of 32 bits", column, words[n])
			}
			*c.ptr(&s) = v
			s.Fields |= 1 << i
		}
	}
	if s.Has(StatClashResolve) {
		s.clear(statsObsolete)
	}
	return s, nil
}

func (s *Stats) clear(fields StatFields) {
	for i, c := range statCounters {
		if fields&(1<<i) != 0 {
			*c.ptr(s) = 0
		}
	}
	s.Fields &^= fields
}
