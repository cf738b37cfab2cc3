package conntrack

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// twins are two tables: what this package does to one, conntrack(8) does to the
// other.
type twins struct {
	t            *testing.T
	ours, theirs *Conn
	host         *lab.Host
}

func newTwins(t *testing.T) *twins {
	t.Helper()
	lab.Tool(t, "conntrack")
	w := &twins{t: t}
	w.ours, _ = emptyTable(t)
	w.theirs, w.host = emptyTable(t)
	return w
}

// run has conntrack(8) do something, and reports whether it did.
func (w *twins) run(args ...string) bool {
	w.t.Helper()
	_, err := w.host.Exec(within(w.t), "conntrack", args...)
	return err == nil
}

// same compares the tables, but for the IDs, times that pass, and the TCP flags:
// whatever conntrack(8) makes or changes, it sets IP_CT_TCP_FLAG_BE_LIBERAL and
// _SACK_PERM along with it.
func (w *twins) same(what string) {
	w.t.Helper()
	ours, theirs := w.table(w.ours), w.table(w.theirs)
	if len(ours) == 0 && what != "nothing" || !slices.EqualFunc(ours, theirs, alike) {
		w.t.Errorf("%s:\nours   %v\ntheirs %v", what, ours, theirs)
	}
}

func alike(a, b Flow) bool {
	a.ID, b.ID = 0, 0
	a.TCP, b.TCP = TCPInfo{State: a.TCP.State}, TCPInfo{State: b.TCP.State}
	return static(a) == static(b) && max(a.Timeout-b.Timeout, b.Timeout-a.Timeout) <= patience
}

func (w *twins) table(c *Conn) []Flow {
	w.t.Helper()
	flows, err := all(w.t, c, nil)
	must(w.t, err)
	slices.SortFunc(flows, func(a, b Flow) int { return strings.Compare(a.Original.String(), b.Original.String()) })
	return flows
}

// args are conntrack(8)'s for a command and the original tuple of a flow.
func (w *twins) args(command string, f Flow, more ...string) []string {
	t := f.Original
	args := []string{command, "-p", t.Proto.String(), "-s", t.Src.String(), "-d", t.Dst.String()}
	if t.hasPorts() {
		args = append(args, "--sport", strconv.Itoa(int(t.SrcPort)), "--dport", strconv.Itoa(int(t.DstPort)))
	}
	return append(args, more...)
}

// TestCreateAgainstTool makes the same entries as conntrack -I, NAT included,
// and has conntrack -G find ours.
func TestCreateAgainstTool(t *testing.T) {
	w := newTwins(t)
	tcp, udp6 := entry(tuple(ProtoTCP, "10.0.0.1:40001", "10.0.0.2:443")), entry(tupleUDP6)
	tcp.Status, tcp.Mark = SeenReply|Assured, 7
	nat := entry(tuple(ProtoUDP, "10.0.0.1:40002", "10.0.0.2:53"))
	nat.Status, nat.Reply.Dst, nat.Reply.Src = natted, tuple(0, "192.0.2.1:0", "192.0.2.1:0").Src, tuple(0, "10.0.0.3:0", "192.0.2.1:0").Src
	for _, tt := range []struct {
		flow Flow
		args []string
	}{
		{tcp, []string{"-t", "100", "--state", "ESTABLISHED", "-u", "SEEN_REPLY,ASSURED", "-m", "7"}},
		{udp6, []string{"-t", "100"}},
		{nat, []string{"-t", "100", "--src-nat", "192.0.2.1", "--dst-nat", "10.0.0.3"}},
	} {
		must(t, w.ours.Create(within(t), tt.flow), w.theirs.Create(within(t), tt.flow))
		if !w.run(w.args("-G", tt.flow)...) {
			t.Errorf("conntrack -G does not find %v", tt.flow)
		}
		got, err := w.theirs.Get(within(t), tt.flow.Original, 0)
		must(t, err, w.theirs.Delete(within(t), got))
		if !w.run(w.args("-I", tt.flow, tt.args...)...) {
			t.Errorf("conntrack -I refuses %v", tt.flow)
		}
	}
	w.same("created")
}

// TestUpdateAgainstTool makes the same changes as conntrack -U.
func TestUpdateAgainstTool(t *testing.T) {
	w := newTwins(t)
	f := entry(tupleTCP)
	mine := create(t, w.ours, f)[0]
	create(t, w.theirs, f)
	for _, tt := range []struct {
		change Change
		args   []string
	}{
		{Change{Timeout: time.Hour}, []string{"-t", "3600"}},
		{Change{Mark: 0x1234}, []string{"-m", "0x1234"}},
		{Change{Mark: 0x50, MarkMask: 0xf0}, []string{"-m", "0x50/0xf0"}},
		{Change{MarkMask: ^uint32(0)}, []string{"-m", "0"}},
		{Change{SetStatus: SeenReply | Assured}, []string{"-u", "SEEN_REPLY,ASSURED"}},
		{Change{SetStatus: FixedTimeout}, []string{"-u", "FIXED_TIMEOUT"}},
	} {
		must(t, w.ours.Update(within(t), mine, tt.change))
		if !w.run(w.args("-U", f, tt.args...)...) {
			t.Errorf("conntrack -U refuses %v", tt.args)
		}
		w.same(strings.Join(tt.args, " "))
	}
}

// TestDeleteAgainstTool removes the same entries as conntrack -D, which finds
// those of the other way gone.
func TestDeleteAgainstTool(t *testing.T) {
	w := newTwins(t)
	table := []Flow{entry(tupleTCP), entry(tupleUDP6), entry(tuple(ProtoUDP, "10.0.0.1:1", "10.0.0.2:53"))}
	ours, theirs := create(t, w.ours, table...), create(t, w.theirs, table...)
	for i := range 2 {
		must(t, w.ours.Delete(within(t), ours[i]))
		if !w.run(w.args("-D", table[i])...) {
			t.Errorf("conntrack -D does not remove %v", table[i])
		}
	}
	w.same("deleted")
	if err := w.theirs.Delete(within(t), theirs[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone by conntrack -D: %v", err)
	}
	report, err := w.theirs.DeleteAll(within(t), slices.Values(theirs), nil)
	if err != nil || report.Deleted != 1 || report.Gone != 2 {
		t.Errorf("%v, %v", report, err)
	}
	if w.run(w.args("-D", table[2])...) {
		t.Error("conntrack -D finds what DeleteAll removed")
	}
	if !w.run("-F") {
		t.Error("conntrack -F")
	}
	must(t, w.ours.Flush(within(t)))
	w.same("nothing")
}
