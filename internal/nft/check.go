package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	maxName    = 255 // NFT_NAME_MAXLEN without its NUL
	maxIface   = 15  // IFNAMSIZ without its NUL
	maxHelper  = 15  // NF_CT_HELPER_NAME_LEN without its NUL
	maxPrefix  = 127 // NF_LOG_PREFIXLEN without its NUL
	maxComment = 128 // what nft(8) shows: NFTNL_UDATA_COMMENT_MAXLEN
)

// check refuses what the kernel would refuse with a bare errno, or accept and
// never carry out.
func check(tables []Table) error {
	for i, t := range tables {
		for _, u := range tables[:i] {
			if t.Family == u.Family && t.Name == u.Name {
				return &Error{Object: tableObject(t), Err: errors.New("given twice")}
			}
		}
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}

func (t Table) check() error {
	switch t.Family {
	case INet, IPv4, IPv6:
	default:
		return &Error{Object: tableObject(t), Err: errors.New("unknown family")}
	}
	if err := errors.Join(checkName(t.Name, maxName), checkComment(t.Comment)); err != nil {
		return &Error{Object: tableObject(t), Err: err}
	}
	if err := t.checkHelpers(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, c := range t.Chains {
		if seen[c.Name] {
			return &Error{Object: chainObject(t, c), Err: errors.New("given twice")}
		}
		seen[c.Name] = true
		if err := c.check(); err != nil {
			return &Error{Object: chainObject(t, c), Err: err}
		}
		for i, r := range c.Rules {
			if err := r.check(t, c); err != nil {
				return &Error{Object: ruleObject(t, c, i), Err: err}
			}
		}
	}
	return nil
}

func (t Table) checkHelpers() error {
	seen := make(map[string]bool)
	for _, h := range t.Helpers {
		err := errors.Join(checkName(h.Name, maxName), checkName(h.Helper, maxHelper))
		if seen[h.Name] {
			err = errors.New("given twice")
		}
		if err != nil {
			return &Error{Object: helperObject(t, h), Err: err}
		}
		seen[h.Name] = true
	}
	return nil
}

func (c Chain) check() error {
	switch {
	case c.Hook < Prerouting || c.Hook > Postrouting:
		return fmt.Errorf("no hook: got %v", c.Hook)
	case c.Type > NAT:
		return fmt.Errorf("unknown type %d", c.Type)
	case c.Policy > PolicyDrop:
		return fmt.Errorf("unknown policy %d", c.Policy)
	case c.Type == NAT && c.Hook == Forward:
		return errors.New("a nat chain cannot hook forward")
	case c.Type == NAT && c.Priority <= PriorityConntrack:
		return fmt.Errorf("priority %d of a nat chain comes before connection tracking (%d)", c.Priority, PriorityConntrack)
	}
	return checkName(c.Name, maxName)
}

// check tells the first thing that is wrong with r in chain c of table t.
func (r Rule) check(t Table, c Chain) error {
	checks := []func(Rule, Table, Chain) error{
		Rule.checkStates, Rule.checkProto, Rule.checkIfaces, Rule.checkFamily,
		Rule.checkTexts, Rule.checkHelper, Rule.checkPolicy, Rule.checkZone, Rule.checkVerdict, Rule.checkTo,
	}
	for _, f := range checks {
		if err := f(r, t, c); err != nil {
			return err
		}
	}
	return nil
}

func (r Rule) checkStates(_ Table, c Chain) error {
	switch {
	case r.CTState&^allStates != 0:
		return fmt.Errorf("unknown connection states %#x", uint32(r.CTState&^allStates))
	case r.Direction > Reply:
		return fmt.Errorf("unknown direction %d", r.Direction)
	case r.Limit.Burst != 0 && r.Limit.PerSecond == 0:
		return fmt.Errorf("a limit with burst %d has no rate", r.Limit.Burst)
	case (r.CTState != 0 || r.Direction != AnyDirection) && c.Priority <= PriorityConntrack && (c.Hook == Prerouting || c.Hook == Output):
		return fmt.Errorf("connections are not known yet at priority %d: conntrack has %d", c.Priority, PriorityConntrack)
	}
	return nil
}

func (r Rule) checkProto(Table, Chain) error {
	ports := []uint8{TCP, UDP, UDPLite, SCTP, DCCP}
	switch {
	case (r.SrcPort != 0 || r.DstPort != 0) && !slices.Contains(ports, r.Proto):
		return fmt.Errorf("a port needs a protocol with ports, such as TCP or UDP: protocol is %d", r.Proto)
	case r.TCPFlags != (TCPFlags{}) && r.Proto != TCP:
		return fmt.Errorf("TCP flags need protocol TCP: protocol is %d", r.Proto)
	case r.ICMPType != 0 && r.Proto != ICMP && r.Proto != ICMPv6:
		return fmt.Errorf("an ICMP type needs protocol ICMP or ICMPv6: protocol is %d", r.Proto)
	case r.TCPFlags.Value&^r.TCPFlags.Mask != 0:
		return fmt.Errorf("TCP flags %#x are not in mask %#x", r.TCPFlags.Value, r.TCPFlags.Mask)
	case r.Verdict == RejectTCPReset && r.Proto != TCP:
		return fmt.Errorf("%v needs protocol TCP: protocol is %d", r.Verdict, r.Proto)
	}
	return nil
}

func (r Rule) checkIfaces(_ Table, c Chain) error {
	for _, name := range []string{r.InIface, r.OutIface} {
		if name == "" {
			continue
		}
		if err := checkName(name, maxIface); err != nil {
			return fmt.Errorf("interface %w", err)
		}
	}
	switch {
	case r.InIface != "" && c.Hook == Output:
		return fmt.Errorf("no packet comes in by an interface at hook %v", c.Hook)
	case r.OutIface != "" && (c.Hook == Prerouting || c.Hook == Input):
		return fmt.Errorf("no packet goes out by an interface at hook %v", c.Hook)
	}
	return nil
}

// checkFamily refuses a rule whose parts never hold of one packet.
func (r Rule) checkFamily(t Table, _ Chain) error {
	for _, p := range []netip.Prefix{r.Src, r.Dst} {
		if p != (netip.Prefix{}) && (!p.IsValid() || p.Addr().Is4In6() || p != p.Masked()) {
			return fmt.Errorf("%v is not a prefix", p)
		}
	}
	four, six := r.families()
	switch {
	case t.Family == IPv4 && six, t.Family == IPv6 && four:
		return fmt.Errorf("a table of family %v never sees what this rule matches", t.Family)
	case four && six:
		return errors.New("no packet is of IPv4 and of IPv6")
	}
	return nil
}

func (r Rule) checkTexts(Table, Chain) error {
	if err := checkComment(r.Comment); err != nil {
		return err
	}
	if r.Log != nil && strings.ContainsRune(r.Log.Prefix, 0) {
		return errors.New("log prefix with a NUL byte")
	}
	if r.Log != nil && len(r.Log.Prefix) > maxPrefix {
		return fmt.Errorf("log prefix of %d bytes: at most %d", len(r.Log.Prefix), maxPrefix)
	}
	return nil
}

// checkHelper knows that a connection is there once it was looked up.
func (r Rule) checkHelper(t Table, c Chain) error {
	named := func(h CTHelper) bool { return h.Name == r.Helper }
	switch {
	case r.Helper == "":
	case !slices.ContainsFunc(t.Helpers, named):
		return fmt.Errorf("helper %q is none of the table's", r.Helper)
	case c.Priority <= PriorityConntrack && (c.Hook == Prerouting || c.Hook == Output):
		return fmt.Errorf("connections are not known yet at priority %d: conntrack has %d", c.Priority, PriorityConntrack)
	}
	return nil
}

// checkPolicy is what xt_ct_tg_check and the declaration of target CT ask for.
func (r Rule) checkPolicy(t Table, c Chain) error {
	if r.TimeoutPolicy == "" {
		return nil
	}
	switch {
	case t.Family == INet || t.Name != "raw":
		return errors.New(`a timeout policy needs a table of family ip or ip6 named "raw"`)
	case c.Priority >= PriorityConntrack || c.Hook != Prerouting && c.Hook != Output:
		return fmt.Errorf("a timeout policy at hook %v, priority %d is too late: conntrack has %d", c.Hook, c.Priority, PriorityConntrack)
	case r.Proto == 0:
		return errors.New("a timeout policy needs a protocol")
	}
	if err := checkName(r.TimeoutPolicy, maxPolicy); err != nil {
		return fmt.Errorf("timeout policy: %w", err)
	}
	return nil
}

func (r Rule) checkVerdict(_ Table, c Chain) error {
	hooks := r.Verdict.hooks()
	switch {
	case r.Verdict > Redirect:
		return fmt.Errorf("unknown %v", r.Verdict)
	case r.Verdict == Continue && !r.Counter && r.Log == nil && !r.Trace && r.Helper == "" && r.TimeoutPolicy == "" && r.Zone == 0:
		return errors.New("does nothing: no verdict, counter, log, trace, helper, timeout policy or zone")
	case hooks != nil && !slices.Contains(hooks, c.Hook):
		return fmt.Errorf("%v cannot be carried out at hook %v", r.Verdict, c.Hook)
	case r.Verdict.nat() && c.Type != NAT:
		return fmt.Errorf("%v needs a chain of type nat", r.Verdict)
	case r.Verdict.reject() && c.Type != Filter:
		return fmt.Errorf("%v needs a chain of type filter", r.Verdict)
	case r.Verdict == NoTrack && c.Priority >= PriorityConntrack:
		return fmt.Errorf("%v at priority %d is too late: conntrack has %d", r.Verdict, c.Priority, PriorityConntrack)
	}
	return nil
}

func (r Rule) checkTo(Table, Chain) error {
	addr, port := r.To.Addr(), r.To.Port()
	switch {
	case !r.Verdict.takesTo() && (addr.IsValid() || port != 0):
		return fmt.Errorf("%v goes nowhere: To must be empty", r.Verdict)
	case (r.Verdict == DNAT || r.Verdict == SNAT) && (!addr.IsValid() || addr.Is4In6() || addr.Zone() != ""):
		return fmt.Errorf("%v needs an address in To: got %v", r.Verdict, r.To)
	case r.Verdict == Redirect && addr.IsValid():
		return fmt.Errorf("%v goes to this host: To must have a port only", r.Verdict)
	case port != 0 && r.Proto != TCP && r.Proto != UDP:
		return fmt.Errorf("%v to a port needs protocol TCP or UDP: protocol is %d", r.Verdict, r.Proto)
	}
	return nil
}

func checkComment(s string) error {
	switch {
	case len(s) > maxComment:
		return fmt.Errorf("comment of %d bytes: at most %d", len(s), maxComment)
	case strings.ContainsRune(s, 0):
		return errors.New("comment with a NUL byte")
	}
	return nil
}

func checkName(name string, most int) error {
	switch {
	case name == "":
		return errors.New("name is empty")
	case len(name) > most:
		return fmt.Errorf("name of %d bytes: at most %d", len(name), most)
	case strings.ContainsRune(name, 0):
		return errors.New("name with a NUL byte")
	}
	return nil
}
