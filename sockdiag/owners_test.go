package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint32{
		"socket:[1234]": 1234, "socket:[4294967295]": math.MaxUint32, "socket:[0]": 0,
		"socket:[4294967296]": 0, "socket:[]": 0, "socket:[12": 0, "socket:12]": 0, "socket:[1 2]": 0, "socket:[-1]": 0,
		"socket:[11111111111]": 0, "pipe:[1234]": 0, "/tmp/socket:[1]": 0, "": 0,
	} {
		got, ok := socketInode([]byte(link))
		if valid := want != 0 || link == "socket:[0]"; ok != valid || ok && got != want {
			t.Errorf("%s: %d, %t", link, got, ok)
		}
	}
}

func TestParseStat(t *testing.T) {
	line := func(name string) []byte {
		return []byte("1234 (" + name + ") S 1 1234 1234 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2")
	}
	for _, name := range []string{"nginx", "a b", ")", "((", ") R 1 (", "\xff", ""} {
		got, started, ok := parseStat(line(name))
		if got != name || started != 987650*time.Millisecond || !ok {
			t.Errorf("%q: %q, %v, %t", name, got, started, ok)
		}
	}
	for _, bad := range []string{"", "(", ")", ")(", "1 (a", "1 (a) S 1 2", strings.Replace(string(line("a")), "98765", "x", 1),
		strings.Replace(string(line("a")), "98765", "99999999999999999999", 1)} {
		if _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzProcText(f *testing.F) {
	f.Add([]byte("1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"))
	f.Add([]byte("Uid:\t0\t1\t2\t3\n"))
	f.Add([]byte("Max open files            1024                 524288               files\n"))
	f.Add([]byte("1\t0\t2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, started, ok := parseStat(b); ok && started < 0 {
			t.Errorf("started %v", started)
		}
		parseUID(b)
		if d, err := parseFileNr(b); err == nil && d.SoftLimit != d.HardLimit || err != nil && d != (Descriptors{}) {
			t.Errorf("%+v, %v", d, err)
		}
		_, _, _ = parseLimits(b)
		if n, ok := socketInode(b); ok && string(b) != fmt.Sprintf("socket:[%0*d]", len(b)-len("socket:[]"), n) {
			t.Errorf("%q: %d", b, n)
		}
	})
}

func TestParseUID(t *testing.T) {
	if uid, ok := parseUID([]byte("Name:\tUid:\nUid:\t1000\t1001\t1002\t1003\nGid:\t1\t2\t3\t4\n")); uid != 1001 || !ok {
		t.Errorf("%d, %t", uid, ok)
	}
	for _, bad := range []string{"", "Uid:", "Uid:\t1", "Uid:\t1\tx", "Gid:\t1\t2"} {
		if _, ok := parseUID([]byte(bad)); ok {
			t.Errorf("%q: no error", bad)
		}
	}
}

// fakeProc writes files and links below a directory.
func fakeProc(t *testing.T, files map[string]string) Proc {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		link, ok := strings.CutPrefix(text, "-> ")
		switch {
		case err != nil:
		case ok:
			err = os.Symlink(link, path)
		default:
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Proc(root)
}

const limits = `Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 unlimited            files
`

func TestDescriptors(t *testing.T) {
	p := fakeProc(t, map[string]string{
		"7/fd/0": "-> /dev/null", "7/fd/1": "-> /dev/null", "7/fd/9": "-> socket:[5]", "7/limits": limits,
		"8/fd/0": "-> /dev/null", "8/limits": "Max cpu time 1 1 seconds\n",
		"9/fd/0":         "-> /dev/null",
		"sys/fs/file-nr": "1344\t0\t9223372036854775807\n",
	})
	if d, err := p.Descriptors(7); err != nil || d != (Descriptors{3, 1024, math.MaxUint64}) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := p.Descriptors(8); err == nil || d != (Descriptors{}) {
		t.Errorf("no limit: %+v, %v", d, err)
	}
	var op *OpError
	if _, err := p.Descriptors(9); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &op) {
		t.Errorf("no limits: %v", err)
	}
	if _, err := p.Descriptors(10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	if d, err := p.SystemDescriptors(); err != nil || d != (Descriptors{1344, math.MaxInt64, math.MaxInt64}) {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "1 2", "1 2 x", "1 2 3 4"} {
		if d, err := parseFileNr([]byte(bad)); err == nil || d != (Descriptors{}) {
			t.Errorf("%q: %+v, %v", bad, d, err)
		}
	}
}
