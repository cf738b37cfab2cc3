package main

import (
	"errors"

	florianl "github.com/florianl/go-conntrack"
	timo "github.com/ti-mo/conntrack"
	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func dumpVishvananda() (outcome, error) {
	flows, err := vishvananda.ConntrackTableList(vishvananda.ConntrackTable, unix.AF_UNSPEC)
	return outcome{entries: len(flows)}, err
}

// every is a filter that all flows pass.
type every struct{}

// MatchConntrackFlow implements vishvananda.CustomConntrackFilter.
func (every) MatchConntrackFlow(*vishvananda.ConntrackFlow) bool { return true }

// deleteVishvananda goes by family: a delete request of none is refused.
func deleteVishvananda() (outcome, error) {
	v4, err4 := vishvananda.ConntrackDeleteFilters(vishvananda.ConntrackTable, unix.AF_INET, every{})
	v6, err6 := vishvananda.ConntrackDeleteFilters(vishvananda.ConntrackTable, unix.AF_INET6, every{})
	return outcome{entries: int(v4 + v6)}, errors.Join(err4, err6)
}

func withTimo(do func(*timo.Conn, []timo.Flow) error) (outcome, error) {
	c, err := timo.Dial(nil)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close() //nolint:errcheck // nothing under way
	flows, err := c.Dump(nil)
	if err == nil {
		err = do(c, flows)
	}
	return outcome{entries: len(flows)}, err
}

func dumpTimo() (outcome, error) {
	return withTimo(func(*timo.Conn, []timo.Flow) error { return nil })
}

func deleteTimo() (outcome, error) {
	return withTimo(func(c *timo.Conn, flows []timo.Flow) error {
		for _, f := range flows {
			if err := c.Delete(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// withFlorianl dumps by family: it knows no dump of both.
func withFlorianl(do func(*florianl.Nfct, florianl.Family, []florianl.Con) error) (outcome, error) {
	c, err := florianl.Open(&florianl.Config{})
	if err != nil {
		return outcome{}, err
	}
	defer c.Close() //nolint:errcheck // nothing under way
	var done outcome
	for _, family := range []florianl.Family{florianl.IPv4, florianl.IPv6} {
		flows, err := c.Dump(florianl.Conntrack, family)
		if err == nil {
			err = do(c, family, flows)
		}
		if err != nil {
			return done, err
		}
		done.entries += len(flows)
	}
	return done, nil
}

func dumpFlorianl() (outcome, error) {
	return withFlorianl(func(*florianl.Nfct, florianl.Family, []florianl.Con) error { return nil })
}

func deleteFlorianl() (outcome, error) {
	return withFlorianl(func(c *florianl.Nfct, family florianl.Family, flows []florianl.Con) error {
		for _, f := range flows {
			if err := c.Delete(florianl.Conntrack, family, florianl.Con{Origin: f.Origin, Zone: f.Zone}); err != nil {
				return err
			}
		}
		return nil
	})
}
