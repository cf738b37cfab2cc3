package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// KernelLog reads what the kernel has logged of connections since an instant,
// from /dev/kmsg, for Host.Log: lines as dmesg -T writes them, the last 1000 of
// them. A line that names another network namespace than that of the process,
// as those of a full table do from Linux 6.18 on, is left out; others are of
// any namespace of the machine.
//
// It takes CAP_SYSLOG where kernel.dmesg_restrict is 1, and is fs.ErrNotExist
// in containers without the device. What the kernel logs meanwhile is not
// waited for.
func KernelLog(since time.Time) ([]string, error) {
	read, boot, err := openKmsg()
	if err == nil {
		defer read.close()
		l := kernelLog{boot: boot, since: since, until: time.Now(), netns: read.netns}
		return l.read(read.record)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: needs CAP_SYSLOG (run as root)", err)
	}
	return nil, fmt.Errorf("snapshot: kernel log: %w", err)
}

// kmsg is the open device.
type kmsg struct {
	record func([]byte) (int, error) // one each, syscall.EAGAIN after the last
	netns  uint64                    // inode number of the process's network namespace
	close  func()
}

// kernelLog is what is wanted of the log.
type kernelLog struct {
	boot, since, until time.Time
	netns              uint64
}

// A record has at most recordSize bytes (PRINTK_MESSAGE_MAX, CONSOLE_EXT_LOG_MAX),
// and not more than maxRecords are read: 64 MiB of log.
const (
	recordSize = 8 << 10
	maxRecords = 1 << 20
)

func (l kernelLog) read(record func([]byte) (int, error)) ([]string, error) {
	var lines []string
	b := make([]byte, recordSize)
	for range maxRecords {
		n, err := record(b)
		switch {
		case errors.Is(err, syscall.EPIPE): // overwritten before it was read
			continue
		case errors.Is(err, syscall.EAGAIN), err == nil && n == 0:
			return lines, nil
		case err != nil:
			return lines, fmt.Errorf("snapshot: kernel log: %w", err)
		}
		at, text, ok := parseRecord(b[:n])
		when := l.boot.Add(at)
		if when.After(l.until) {
			return lines, nil
		}
		if ok && !when.Before(l.since) && known.MatchString(text) && !l.elsewhere(text) {
			line := fmt.Sprintf("[%s] %s", when.Local().Format(time.ANSIC), text)
			lines = append(lines[max(0, len(lines)-maxLog+1):], line)
		}
	}
	return lines, nil
}

// otherNetNS is a network namespace by its inode number, which a namespace
// other than the initial one has in its lines.
var otherNetNS = regexp.MustCompile(` in netns ([0-9]+)`)

func (l kernelLog) elsewhere(text string) bool {
	word := otherNetNS.FindStringSubmatch(text)
	return word != nil && l.netns != 0 && word[1] != strconv.FormatUint(l.netns, 10)
}

// parseRecord reads "6,339,5140900,-;text", and what follows it on lines of
// their own is left out: priority, number, microseconds since the boot, flags
// (Documentation/ABI/testing/dev-kmsg). What programs have written there is
// not ok.
func parseRecord(b []byte) (at time.Duration, text string, ok bool) {
	head, line, found := bytes.Cut(b, []byte{';'})
	words := strings.Split(string(head), ",")
	if !found || len(words) < 4 {
		return 0, "", false
	}
	priority, err := strconv.ParseUint(words[0], 10, 32)
	micros, merr := strconv.ParseInt(words[2], 10, 53) // of 285 years
	line, _, _ = bytes.Cut(line, []byte{'\n'})
	kernel := priority>>3 == 0 // LOG_KERN
	return time.Duration(micros) * time.Microsecond, string(line), err == nil && merr == nil && micros >= 0 && kernel
}
