package reject

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// netfilterSysctls is where the sysctls of the tracker and of the loggers are.
// What is there depends on the namespace of the thread that opens it.
const netfilterSysctls = "/proc/sys/net/netfilter"

// restoreSysctl is one below netfilterSysctls, with slashes, and a value.
type restoreSysctl struct{ name, value string }

// sysctl8 is the name that sysctl(8) has for it.
func (s restoreSysctl) sysctl8() string {
	return "net.netfilter." + strings.ReplaceAll(s.name, "/", ".")
}

const logInvalid = "nf_conntrack_log_invalid"

// reasonSysctls make the kernel write its reasons to group 0, in the order in
// which they are set.
var reasonSysctls = []restoreSysctl{
	{"nf_log/2", "nfnetlink_log"}, // AF_INET
	{"nf_log/10", "nfnetlink_log"},
	{logInvalid, "255"}, // all protocols
}

// restoreDir has the sysctls below a directory.
type restoreDir string

func (dir restoreDir) get(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(dir), name))
	return strings.TrimSpace(string(b)), err
}

func (dir restoreDir) set(s restoreSysctl) error {
	return os.WriteFile(filepath.Join(string(dir), s.name), []byte(s.value), 0)
}

// former returns what the sysctls of want are now, of those that differ.
func (dir restoreDir) former(want []restoreSysctl) ([]restoreSysctl, error) {
	var was []restoreSysctl
	for _, s := range want {
		value, err := dir.get(s.name)
		if err != nil {
			return nil, err
		}
		if value != s.value {
			was = append(was, restoreSysctl{s.name, value})
		}
	}
	return was, nil
}

// restore sets back what still has the value that was given to it, in reverse
// order. What somebody has changed since is theirs.
func (dir restoreDir) restore(was []restoreSysctl) error {
	var errs []error
	for i := len(was) - 1; i >= 0; i-- {
		value, err := dir.get(was[i].name)
		if err == nil && value == restoreGiven(was[i].name) {
			err = dir.set(was[i])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// restoreGiven is the value that a sysctl is given.
func restoreGiven(name string) string {
	for _, s := range reasonSysctls {
		if s.name == name {
			return s.value
		}
	}
	return ""
}

// wanted returns what the sysctls were that have to be changed to get reasons.
// Where the host writes a log of INVALID packets of its own, nothing is: it
// would go elsewhere.
func (dir restoreDir) wanted() ([]restoreSysctl, error) {
	was, err := dir.former(reasonSysctls)
	if err != nil {
		return nil, err
	}
	invalid, err := dir.get(logInvalid)
	if err != nil || invalid == "0" {
		return was, err
	}
	for _, s := range was {
		if s.name != logInvalid && s.value != "NONE" {
			return nil, fmt.Errorf("the host logs INVALID packets itself (net.netfilter.%s=%s to %s): %w",
				logInvalid, invalid, s.value, fs.ErrExist)
		}
	}
	return was, nil
}

// recordOf is the comment from which a later start learns what to set back.
func recordOf(was []restoreSysctl) string {
	words := []string{"was"}
	for _, s := range was {
		words = append(words, s.name+"="+s.value)
	}
	return strings.Join(words, " ")
}

// parseRecord reads what recordOf wrote. A sysctl that is never changed is an
// error.
func parseRecord(comment string) ([]restoreSysctl, error) {
	words := strings.Fields(comment)
	if len(words) == 0 || words[0] != "was" {
		return nil, fmt.Errorf("comment %q of table inet %s is not of this program: delete the table", comment, restoreTable)
	}
	var was []restoreSysctl
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok || restoreGiven(name) == "" || value == "" {
			return nil, fmt.Errorf("comment of table inet %s has %q: set the sysctl back by hand and delete the table", restoreTable, word)
		}
		was = append(was, restoreSysctl{name, value})
	}
	return was, nil
}
