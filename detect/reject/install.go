package reject

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/internal/netns"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// Install is what Watch adds to the network namespace while it runs: a table of
// nftables of its own, inet connsleuth, whose rules only log and trace. They log
// packets of the states new and invalid (of untracked ones those with SYN)
// before the firewall's rules for input, forward and output, and again after
// them: what came and did not pass was refused, whoever refused it and whether or
// not it was answered. And they log ICMP errors and the resets that go out. No
// other table is touched. A rule that asks for a packet's state makes the kernel
// track connections; where no other does, it stops when Watch ends.
//
// Nothing of it is left when Watch ends. After a crash the kernel removes the
// table (Linux 5.12; before that, the next Watch with Install replaces it), and
// the next Watch with Install sets the sysctls back, which it finds in the
// comment of a second table, inet connsleuth-restore.
//
// What could not be removed is told by the last *Degraded, before the error that
// ends Watch. Who breaks the range is not told: cancel the context instead.
//
// Not seen in this way are packets that are refused in prerouting, postrouting or
// ingress, or at a priority above 90, and of known connections those that are
// dropped without an answer. A packet that a program holds in a queue (NFQUEUE)
// for longer than Config.Wait, or that synproxy takes, counts as refused.
type Install struct {
	// Traces is how many packets a second are traced at each hook, to name the
	// rule that refuses them (meta nftrace; rules of iptables-legacy have no
	// trace). 0 is 20; negative is none. Each costs the kernel a message for each
	// rule that matches it, which "nft monitor trace" shows too.
	Traces int
	// Reasons is for how many INVALID packets a second the kernel is asked to
	// write its reason (see package nflog for the sysctls). Beyond it, it is told
	// to stop for 10 s. 0 is 1000; negative is not to ask at all. Meanwhile what
	// iptables-legacy traces (TRACE) goes to group 0 too.
	Reasons int
}

// ErrInstalled tells that another Watch has installed its table in the network
// namespace: there can be one at a time.
var ErrInstalled = errors.New("another Watch has installed its table")

// Degraded tells that a Watch with Install goes on without a part of what it was
// to install. It is no end: ranging goes on after it.
type Degraded struct {
	What string // what is missing: "the kernel's reasons"
	Err  error
}

func (e *Degraded) Error() string { return "reject: without " + e.What + ": " + e.Err.Error() }

func (e *Degraded) Unwrap() error { return e.Err }

const (
	defaultTraces  = 20
	defaultReasons = 1000
	maxPassing     = 1 << 16 // packets on their way through the rules, and refused ones for Config.Wait
	tidyUp         = 5 * time.Second
)

func (in Install) withDefaults() Install {
	if in.Traces == 0 {
		in.Traces = defaultTraces
	}
	if in.Reasons == 0 {
		in.Reasons = defaultReasons
	}
	return in
}

// installed is what a Watch has installed. pairs and traced are guarded by
// watch.mu.
type installed struct {
	cfg    Config // with the groups to listen to
	pairs  *pairs
	traced *recent[reasonKey, *Rule]

	ns    *netns.Thread
	nft   *nft.Conn
	table *nft.Owned
	was   []restoreSysctl // what to set back; not nil while there is a record of it
	rules *ruleTexts      // nil traces nothing

	mu     sync.Mutex // guards budget and notes
	budget reasonBudget
	notes  []error // to be told

	once sync.Once
	end  error // of close
}

// install makes what cfg.Install asks for, which may be nothing, and clears up
// after a crash.
func install(ctx context.Context, cfg *Config) (_ *installed, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	in := &installed{cfg: cfg.withDefaults()}
	if cfg.Install == nil {
		return in, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("reject: install: %w", err), in.close())
		}
	}()
	in.pairs, in.traced = newPairs(in.cfg.Wait, maxPassing), newRecent[reasonKey, *Rule](1024)
	if in.ns, err = netns.Enter(cfg.NetNS); err != nil {
		return nil, err
	}
	if in.nft, err = nft.Dial(cfg.NetNS); err != nil {
		return nil, err
	}
	want := cfg.Install.withDefaults()
	if want.Traces > 0 {
		in.rules = &ruleTexts{conn: in.nft}
	}
	bound, err := boundGroups(in.ns)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // who may not read it may not listen either
		return nil, err
	}
	group := freeGroup(bound, cfg.Groups)
	if err = in.own(ctx, installTable(group, want.Traces, ownerComment())); err != nil {
		return nil, err
	}
	in.cfg.Groups = append(slices.Clone(cfg.Groups), group)
	if err = in.recover(ctx); err != nil {
		return nil, err
	}
	in.askReasons(ctx, want.Reasons, bound[0] || slices.Contains(cfg.Groups, 0))
	return in, nil
}

// own makes the table, unless somebody has it. Kernels without owners would let
// one Watch replace the other's.
func (in *installed) own(ctx context.Context, t nft.Table) (err error) {
	holder, err := in.comment(ctx, watchTable)
	if err != nil {
		return err
	}
	if holder.there && holder.owner == 0 && installAlive(holder.comment) {
		return fmt.Errorf("%w: table inet %s, %s", ErrInstalled, watchTable, holder.comment)
	}
	in.table, err = in.nft.Own(ctx, t)
	if errors.Is(err, nft.ErrOwned) {
		return fmt.Errorf("%w: table inet %s, %s", ErrInstalled, watchTable, holder.comment)
	}
	return err
}

// tableHolder is what is told of a table by the table.
type tableHolder struct {
	there   bool
	owner   uint32
	comment string
}

// comment looks for one of the two tables.
func (in *installed) comment(ctx context.Context, name string) (tableHolder, error) {
	set, err := in.nft.Ruleset(ctx)
	if err != nil {
		return tableHolder{}, installNoTables(err)
	}
	for _, t := range set.Tables {
		if t.Family == nft.INet && t.Name == name {
			return tableHolder{true, t.Owner, t.Comment}, nil
		}
	}
	return tableHolder{}, nil
}

// installNoTables says what the answer of a kernel without nftables means.
func installNoTables(err error) error {
	if !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return fmt.Errorf("kernel without nftables (CONFIG_NF_TABLES, module nf_tables): %w: %w", errors.ErrUnsupported, err)
}

// ownerComment says whose the table is.
func ownerComment() string {
	name := filepath.Base(os.Args[0])
	return fmt.Sprintf("of process %d (%.64s)", os.Getpid(), strings.ToValidUTF8(strings.ReplaceAll(name, `"`, ""), ""))
}

// installAlive reports that the process which the comment names is still there.
func installAlive(comment string) bool {
	var pid int
	if n, _ := fmt.Sscanf(comment, "of process %d", &pid); n != 1 {
		return false
	}
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

// recover sets back what a crash has left, once nobody else can be at it: the
// first table is ours.
func (in *installed) recover(ctx context.Context) error {
	left, err := in.comment(ctx, restoreTable)
	if err != nil || !left.there {
		return err
	}
	if in.was, err = parseRecord(left.comment); err != nil {
		return err
	}
	return in.putBack(ctx)
}

// putBack sets the sysctls back and then forgets them.
func (in *installed) putBack(ctx context.Context) error {
	if in.was == nil {
		return nil
	}
	if err := in.ns.Do(func() error { return restoreDir(netfilterSysctls).restore(in.was) }); err != nil {
		return fmt.Errorf("set sysctls back (inet %s keeps them): %w", restoreTable, err)
	}
	in.was = nil
	err := in.nft.Delete(ctx, nft.INet, restoreTable)
	if errors.Is(err, fs.ErrNotExist) { // somebody has flushed all tables
		return nil
	}
	return err
}

// close leaves the namespace as it was. A second call returns what the first
// did.
func (in *installed) close() error {
	in.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), tidyUp)
		defer cancel()
		if in.nft != nil {
			in.end = in.putBack(ctx)
		}
		if in.table != nil { // last: until then nobody else installs
			in.end = errors.Join(in.end, in.table.Close())
		}
		if in.nft != nil {
			in.end = errors.Join(in.end, in.nft.Close())
		}
		if in.ns != nil {
			in.ns.Close()
		}
		if in.end != nil {
			in.end = &Degraded{"having removed all that was installed", in.end}
		}
	})
	return in.end
}
