package ban

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
)

// record is a line of a Journal's file: the CRC-32C of the JSON that follows, in
// 8 hexadecimal digits, and a blank.
type record struct {
	Op       op           `json:"op"`
	Prefix   netip.Prefix `json:"prefix"`
	Until    *Until       `json:"until,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Evidence string       `json:"evidence,omitempty"`
}

type op string

const (
	opBan   op = "ban"
	opUnban op = "unban"
)

func recordOf(e Entry) record {
	return record{Op: opBan, Prefix: e.Prefix, Until: &e.Until, Reason: e.Reason, Evidence: e.Evidence}
}

func (r *record) entry() Entry {
	return Entry{Prefix: r.Prefix, Until: *r.Until, Reason: r.Reason, Evidence: r.Evidence}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *record) append(b []byte) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(text, castagnoli))
	return append(append(b, text...), '\n'), nil
}

func decodeRecord(line []byte) (r record, err error) {
	sum, text, ok := bytes.Cut(line, []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) {
		return record{}, errors.New("the checksum is wrong")
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, err
	}
	switch {
	case r.Op == opUnban && r.Prefix.IsValid():
		return r, nil
	case r.Op != opBan || r.Until == nil:
		return record{}, fmt.Errorf("neither a ban nor the end of one: %s", text)
	}
	return r, r.entry().Check()
}

// cutLine cuts a line off; whole is false if b has no end of line.
func cutLine(b []byte) (line, rest []byte, whole bool) {
	return bytes.Cut(b, []byte("\n"))
}

// syncDir makes the name of a file outlive a crash.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be opened
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
