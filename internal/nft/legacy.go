package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// LegacyTables lists the tables of iptables-legacy, as "ip filter" and "ip6
// raw", of the network namespace that proc, a /proc, shows: their rules are in
// no Ruleset and no trace. A table is there once anybody has looked at it, so it
// may be empty. None, when the kernel has no such tables. The files are for the
// namespace's root only: fs.ErrPermission.
func LegacyTables(proc fs.FS) ([]string, error) {
	var tables []string
	for _, f := range []struct{ family, file string }{{"ip ", "net/ip_tables_names"}, {"ip6 ", "net/ip6_tables_names"}} {
		b, err := fs.ReadFile(proc, f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("nft: tables of iptables-legacy: %w (root of the network namespace may read it)", err)
		}
		for name := range strings.FieldsSeq(string(b)) {
			tables = append(tables, f.family+name)
		}
	}
	return tables, nil
}
