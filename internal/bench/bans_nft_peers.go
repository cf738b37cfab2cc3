package main

import (
	"time"

	"github.com/google/nftables"
)

// withGoogle opens a connection that lasts, and names the set of bans of IPv4
// hosts.
func withGoogle(do func(*nftables.Conn, *nftables.Set) (int, error)) (outcome, error) {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return outcome{}, err
	}
	defer c.CloseLasting() //nolint:errcheck // nothing under way
	began := time.Now()
	n, err := do(c, &nftables.Set{
		Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: "connsleuth"},
		Name:  "ipv4_32", KeyType: nftables.TypeIPAddr, HasTimeout: true,
	})
	return outcome{entries: n, wall: time.Since(began)}, err
}

func googleElements(first, last int) []nftables.SetElement {
	list := make([]nftables.SetElement, 0, last-first)
	for i := first; i < last; i++ {
		a := numbered(i).As4()
		list = append(list, nftables.SetElement{Key: a[:], Timeout: time.Hour})
	}
	return list
}

func banGoogle() (outcome, error) {
	list := googleElements(0, asked)
	return withGoogle(func(c *nftables.Conn, s *nftables.Set) (int, error) {
		if err := c.SetAddElements(s, list); err != nil {
			return 0, err
		}
		return asked, c.Flush()
	})
}

func banGoogleParts() (outcome, error) {
	list := googleElements(0, asked)
	return withGoogle(func(c *nftables.Conn, s *nftables.Set) (int, error) {
		const part = 1000
		for i := 0; i < asked; i += part {
			if err := c.SetAddElements(s, list[i:min(i+part, asked)]); err != nil {
				return i, err
			}
			if err := c.Flush(); err != nil {
				return i, err
			}
		}
		return asked, nil
	})
}

func oneGoogle() (outcome, error) {
	return withGoogle(func(c *nftables.Conn, s *nftables.Set) (int, error) {
		for i := range ones {
			a := single(i).As4()
			if err := c.SetAddElements(s, []nftables.SetElement{{Key: a[:], Timeout: time.Hour}}); err != nil {
				return i, err
			}
			if err := c.Flush(); err != nil {
				return i, err
			}
		}
		return ones, nil
	})
}

func listGoogle() (outcome, error) {
	return withGoogle(func(c *nftables.Conn, s *nftables.Set) (int, error) {
		list, err := c.GetSetElements(s)
		return len(list), err
	})
}
