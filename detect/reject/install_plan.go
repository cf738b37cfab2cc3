package reject

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/connsleuth/connsleuth/internal/netns"
)

// Plan is what Install would add, for those who want to see it first.
type Plan struct {
	// Table is the table in the words of nft(8), as "nft list table inet
	// connsleuth" shows it while Watch runs.
	Table string
	// Sysctls are those that would be changed.
	Sysctls []SysctlChange
	// Missing says why the kernel's reasons would be missing; nil is that they
	// would not.
	Missing error
}

// SysctlChange is a sysctl that is changed while Watch runs.
type SysctlChange struct {
	Name     string // "net.netfilter.nf_conntrack_log_invalid"
	From, To string
}

// String is the plan as one can read it: the table, and the sysctls as comments.
func (p Plan) String() string {
	var b strings.Builder
	b.WriteString(p.Table)
	for _, c := range p.Sysctls {
		fmt.Fprintf(&b, "# sysctl %s=%s (now %s)\n", c.Name, c.To, c.From)
	}
	if p.Missing != nil {
		fmt.Fprintf(&b, "# no reasons of the kernel: %v\n", p.Missing)
	}
	return b.String()
}

// Plan says what a Watch with this Config would add to the network namespace
// now, and changes nothing. It takes no privilege, but without any it cannot see
// which groups are taken. Before the kernel's connection tracking is there, its
// sysctls are not, which Missing then says.
func (cfg *Config) Plan() (Plan, error) {
	if err := cfg.check(); err != nil {
		return Plan{}, err
	}
	if cfg.Install == nil {
		return Plan{}, errors.New("reject: Config.Install is nil: nothing would be added")
	}
	ns, err := netns.Enter(cfg.NetNS)
	if err != nil {
		return Plan{}, fmt.Errorf("reject: plan: %w", err)
	}
	defer ns.Close()
	bound, err := boundGroups(ns)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return Plan{}, fmt.Errorf("reject: plan: %w", err)
	}
	want := cfg.Install.withDefaults()
	p := Plan{Table: tableText(installTable(freeGroup(bound, cfg.Groups), want.Traces, ownerComment()))}
	if want.Reasons > 0 {
		p.Sysctls, p.Missing = reasonChanges(ns, bound[0])
	}
	return p, nil
}

// reasonChanges are those of the sysctls that make the kernel write its reasons.
func reasonChanges(ns *netns.Thread, taken bool) (all []SysctlChange, err error) {
	if taken {
		return nil, errGroup0
	}
	var was []restoreSysctl
	err = ns.Do(func() (err error) { was, err = restoreDir(netfilterSysctls).wanted(); return err })
	for _, s := range was {
		all = append(all, SysctlChange{s.sysctl8(), s.value, restoreGiven(s.name)})
	}
	return all, err
}
