package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The files that Record writes, beside those of /proc that are no sysctls.
const (
	socketsFile = "sockets.jsonl.gz"
	flowsFile   = "flows.jsonl.gz"
	sysctlFile  = "sysctl.txt"
	hostFile    = "host.json"
)

// Version 2 of the format tells which counters the kernel had at the earlier
// reading; version 1 is read, too.
const (
	hostFormat  = "connsleuth-host"
	hostVersion = 2
)

// hostJSON is what is known of a host and is in no other file.
type hostJSON struct {
	Format  string                       `json:"format"`
	Version int                          `json:"version"`
	Now     time.Time                    `json:"now"`
	Kernel  string                       `json:"kernel"`
	Addrs   []netip.Addr                 `json:"addrs"`
	Old     []detect.Setting             `json:"old"`
	Files   []detect.OpenFiles           `json:"files"`
	Holders map[uint32][]sockdiag.Holder `json:"holders"`
	Earlier detect.Earlier               `json:"earlier,omitzero"`
	Log     []string                     `json:"log,omitempty"`
}

// Record writes a new snapshot into a directory, which it makes if there is
// none: sockets and flows as they come, in constant memory; of h what is
// neither rows nor of /proc; and the files of a /proc file system that System
// reads. A nil sequence is one that could not be seen.
//
// Sockets are written before flows. A file that is there already is fs.ErrExist:
// nothing is overwritten. With any error, what was written is no snapshot.
func Record(dir string, h detect.Host, proc fs.FS, sockets iter.Seq2[sockdiag.Socket, error], flows iter.Seq2[conntrack.Flow, error]) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	err := errors.Join(
		write(dir, socketsFile, sockets != nil, func(w io.Writer) error {
			return sockdiag.Record(w, sockdiag.RecordInfo{Time: h.Now, Kernel: h.Kernel}, sockets)
		}),
		write(dir, flowsFile, flows != nil, func(w io.Writer) error {
			return conntrack.Record(w, conntrack.RecordInfo{Time: h.Now, Kernel: h.Kernel}, flows)
		}),
		writeSystem(dir, proc),
		write(dir, hostFile, true, func(w io.Writer) error {
			return json.NewEncoder(w).Encode(hostJSON{hostFormat, hostVersion, h.Now, h.Kernel, h.Addrs, h.Old, h.Files, h.Holders, h.Earlier, h.Log})
		}))
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// writeSystem writes the files that System reads: sysctls as sysctl -a does,
// the others as they are.
func writeSystem(dir string, proc fs.FS) error {
	files := tee{proc, make(map[string][]byte)}
	_, err := System(files)
	var sysctls strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files.read)) {
		if path, ok := strings.CutPrefix(name, "sys/"); ok {
			fmt.Fprintf(&sysctls, "%s = %s\n", strings.ReplaceAll(path, "/", "."), strings.TrimSpace(string(files.read[name])))
			continue
		}
		err = errors.Join(err, write(dir, strings.ReplaceAll(name, "/", "_"), true, func(w io.Writer) error {
			_, err := w.Write(files.read[name])
			return err
		}))
	}
	return errors.Join(err, write(dir, sysctlFile, sysctls.Len() > 0, func(w io.Writer) error {
		_, err := io.WriteString(w, sysctls.String())
		return err
	}))
}

// write makes a new file, if there is anything for it.
func write(dir, name string, have bool, fill func(io.Writer) error) (err error) {
	if !have {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return fill(f)
}
