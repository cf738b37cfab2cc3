package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Usage is how full the tracker is. It is comparable.
type Usage struct {
	// Count is how many entries the network namespace has. Entries that have
	// expired but were not yet collected, and those of packets still under
	// way, are among them: a dump has fewer.
	Count uint64
	// Max is how many entries a namespace may have; 0 is no limit. It is set
	// in the initial namespace for all, and compared with the Count of each.
	Max uint64
	// Buckets is how many hash chains there are, for all namespaces together.
	Buckets uint64
	// EntryBytes is what one entry takes of the kernel's memory.
	EntryBytes uint64
	// Fields says which of the values were told.
	Fields UsageFields
}

// UsageFields is a set of the parts of Usage that can be absent.
type UsageFields uint8

// The parts of Usage that can be absent.
const (
	UsageMax UsageFields = 1 << iota
	UsageBuckets
	UsageEntryBytes // measured: /proc/slabinfo
)

// entryBytes is the object size of the slab nf_conntrack in 64-bit kernels 5.10
// to 6.18; those of 32 bits need less.
const entryBytes = 256

// Has reports whether all of the fields were told.
func (u Usage) Has(fields UsageFields) bool { return u.Fields&fields == fields }

// Share returns which part of Max is used, 1 being all, and whether there is a
// limit.
func (u Usage) Share() (share float64, limited bool) {
	if !u.Has(UsageMax) || u.Max == 0 {
		return 0, false
	}
	return float64(u.Count) / float64(u.Max), true
}

// Load returns how many links a hash chain has on average, each entry being in
// one chain for either direction, and whether Buckets was told. Above 1
// look-ups become slower. The entries of other namespaces are in the same
// chains and not counted.
func (u Usage) Load() (load float64, ok bool) {
	if !u.Has(UsageBuckets) || u.Buckets == 0 {
		return 0, false
	}
	return 2 * float64(u.Count) / float64(u.Buckets), true
}

// Memory estimates the bytes of kernel memory that the namespace's entries take
// and, if Buckets was told, the hash table, which all share. An entry is
// counted as EntryBytes or, when that is absent, 256. Left out is what entries
// have in addition for counters, times, NAT or a helper: some 100 bytes each.
func (u Usage) Memory() (entries, table uint64) {
	size := uint64(entryBytes)
	if u.Has(UsageEntryBytes) {
		size = u.EntryBytes
	}
	const bucketBytes = 8 // struct hlist_nulls_head of a 64-bit kernel
	return u.Count * size, u.Buckets * bucketBytes
}

// String tells the usage in one line: "12 of 262144 entries (0.0 %)".
func (u Usage) String() string {
	share, limited := u.Share()
	if !limited {
		return fmt.Sprintf("%d entries", u.Count)
	}
	return fmt.Sprintf("%d of %d entries (%.1f %%)", u.Count, u.Max, 100*share)
}

const (
	opGetStats = 5 // IPCTNL_MSG_CT_GET_STATS

	ctaGlobalEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
	ctaGlobalMax     = 2 // CTA_STATS_GLOBAL_MAX_ENTRIES: Linux 4.18
)

// Usage returns Count and Max. ReadUsage tells more and takes no privilege, but
// only of the namespace whose /proc can be read.
func (c *Conn) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	told := false
	req := nfnl.NewNetfilter(subsystem, opGetStats, 0, familyUnspec).Message()
	err := c.nl.Do(ctx, req, func(m nfnl.Message) error {
		if m.Type != req.Type {
			return nil
		}
		told = true
		return u.decode(m.Data)
	})
	if err == nil && !told {
		err = errors.New("the kernel did not answer with counts")
	}
	if err != nil {
		return Usage{}, opError("usage", err)
	}
	return u, nil
}

func (u *Usage) decode(b []byte) error {
	if len(b) < nfgenmsgLen {
		return errShort
	}
	a := nfnl.Walk(b[nfgenmsgLen:])
	for a.Next() {
		switch a.Type {
		case ctaGlobalEntries:
			u.Count = uint64(a.U32())
		case ctaGlobalMax:
			u.Max, u.Fields = uint64(a.U32()), u.Fields|UsageMax
		}
	}
	return a.Err()
}

// ReadUsage reads the usage from a /proc file system: ReadUsage(os.DirFS("/proc")).
// It takes no privilege, save for EntryBytes: /proc/slabinfo is root's. That
// there is no tracker is fs.ErrNotExist.
func ReadUsage(proc fs.FS) (Usage, error) {
	s, err := ReadSettings(proc)
	if err == nil && !s.Has(sysctlPrefix+"count") {
		err = fmt.Errorf("no sys/net/netfilter/nf_conntrack_count: %w (modprobe nf_conntrack)", fs.ErrNotExist)
	}
	if e, ok := errors.AsType[*OpError](err); ok {
		err = e.Err
	}
	if err != nil {
		return Usage{}, opError("usage", err)
	}
	u := Usage{Count: s.Count, Max: s.Max, Buckets: s.Buckets}
	if s.Has(sysctlPrefix + "max") {
		u.Fields |= UsageMax
	}
	if s.Has(sysctlPrefix + "buckets") {
		u.Fields |= UsageBuckets
	}
	if size, ok := slabSize(proc); ok {
		u.EntryBytes, u.Fields = size, u.Fields|UsageEntryBytes
	}
	return u, nil
}

// slabSize is the object size of the slab nf_conntrack, which is never merged
// with others (SLAB_TYPESAFE_BY_RCU).
func slabSize(proc fs.FS) (size uint64, ok bool) {
	b, err := fs.ReadFile(proc, "slabinfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line) // name, active, all, object size
		if len(words) > 3 && words[0] == "nf_conntrack" {
			size, err = strconv.ParseUint(words[3], 10, 32)
			return size, err == nil && size > 0
		}
	}
	return 0, false
}
