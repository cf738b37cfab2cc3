package conntrack

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// TestUpdate makes one change after the other to an entry in a zone, and checks
// that each changes what it says and nothing else.
func TestUpdate(t *testing.T) {
	c, _ := emptyTable(t)
	f := entry(tupleTCP)
	f.Zone, f.Mark, f.TCP.OriginalFlags, f.TCP.ReplyFlags = 7, 0xff, TCPCloseInit, TCPSackPermitted
	now := create(t, c, f)[0]
	innocent := create(t, c, entry(tupleTCP), entry(tupleUDP6))
	for _, tt := range []struct {
		name   string
		change Change
		want   func(f *Flow)
	}{
		{"nothing", Change{}, func(*Flow) {}},
		{"timeout", Change{Timeout: time.Hour}, func(*Flow) {}},
		{"mark", Change{Mark: 0x1234}, func(f *Flow) { f.Mark = 0x1234 }},
		{"part of the mark", Change{Mark: 0x0500, MarkMask: 0x0ff0}, func(f *Flow) { f.Mark = 0x1504 }},
		{"no part of the mark", Change{MarkMask: 0x0f00}, func(f *Flow) { f.Mark = 0x1004 }},
		{"no mark", Change{MarkMask: ^uint32(0)}, func(f *Flow) { f.Mark = 0 }},
		{"seen reply", Change{SetStatus: SeenReply}, func(f *Flow) { f.Status |= SeenReply }},
		{"assured", Change{SetStatus: Assured}, func(f *Flow) { f.Status |= Assured }},
		{"assured again", Change{SetStatus: Assured}, func(*Flow) {}},
		{"no helper where there is none", Change{RemoveHelper: true}, func(*Flow) {}},
		{"TCP state", Change{TCP: TCPChange{State: TCPFinWait}}, func(f *Flow) { f.TCP.State = TCPFinWait }},
		{"TCP flags", Change{TCP: TCPChange{OriginalFlags: TCPLiberal, OriginalMask: TCPLiberal | TCPCloseInit}}, func(f *Flow) { f.TCP.OriginalFlags = TCPLiberal }},
		{"TCP flags of the reply", Change{TCP: TCPChange{ReplyFlags: TCPLiberal, ReplyMask: TCPLiberal}}, func(f *Flow) { f.TCP.ReplyFlags |= TCPLiberal }},
		{"several", Change{Timeout: 2 * time.Hour, Mark: 5, SetStatus: FixedTimeout, TCP: TCPChange{State: TCPEstablished}}, func(f *Flow) {
			f.Mark, f.TCP.State, f.Status = 5, TCPEstablished, f.Status|FixedTimeout
		}},
		{"though the flow is an old view", Change{Mark: 6}, func(f *Flow) { f.Mark = 6 }},
	} {
		want := now
		tt.want(&want)
		given := now
		if strings.HasPrefix(tt.name, "though") {
			given.Status, given.Mark, given.Timeout = Confirmed, 0, 0
		}
		if err := c.Update(within(t), given, tt.change); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, err := c.Get(within(t), f.Original, f.Zone)
		if err != nil || static(got) != static(want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", tt.name, plain(got), err, plain(want))
		}
		if tt.change.Timeout != 0 && (got.Timeout > tt.change.Timeout || got.Timeout < tt.change.Timeout-patience) {
			t.Errorf("%s: timeout %v, want %v", tt.name, got.Timeout, tt.change.Timeout)
		}
		now = got
	}
	for _, f := range innocent {
		if got, err := c.Get(within(t), f.Original, 0); err != nil || static(got) != static(f) {
			t.Errorf("got %v, %v; want %v", got, err, f)
		}
	}
}

// TestUpdateRefuses asks for what the kernel does not do, and for what it would
// do otherwise than asked.
func TestUpdateRefuses(t *testing.T) {
	c, _ := emptyTable(t)
	fixed := entry(tupleTCP)
	fixed.Status = FixedTimeout
	made := create(t, c, fixed, entry(tupleUDP6))
	for _, tt := range []struct {
		name   string
		flow   Flow
		change Change
		is     error
		text   string
	}{
		{"under a second", made[1], Change{Timeout: time.Second - 1}, nil, "timeout 999"},
		{"negative timeout", made[1], Change{Timeout: -time.Second}, nil, "timeout"},
		{"fixed timeout", made[0], Change{Timeout: time.Hour}, errors.ErrUnsupported, "FIXED_TIMEOUT"},
		{"mark outside its mask", made[1], Change{Mark: 3, MarkMask: 1}, nil, "outside its mask"},
		{"labels outside their mask", made[1], Change{Labels: LabelSet(3), LabelsMask: LabelSet(4)}, nil, "outside their mask"},
		{"no room for labels", made[1], Change{Labels: LabelSet(3)}, nil, "labels"},
		{"status of the kernel's", made[1], Change{SetStatus: Confirmed}, nil, "only SEEN_REPLY"},
		{"status of NAT", made[1], Change{SetStatus: SrcNAT}, nil, "only SEEN_REPLY"},
		{"helper", made[0], Change{Helper: "ftp"}, errors.ErrUnsupported, `helper "ftp"`},
		{"unknown helper", made[0], Change{Helper: "nonesuch"}, errors.ErrUnsupported, "none of this name"},
		{"long name", made[0], Change{Helper: strings.Repeat("x", 16)}, nil, "at most 15 bytes"},
		{"name with NUL", made[0], Change{Helper: "\x00"}, nil, "NUL"},
		{"helper and none", made[0], Change{Helper: "ftp", RemoveHelper: true}, nil, "both"},
		{"TCP state of UDP", made[1], Change{TCP: TCPChange{State: TCPClose}}, nil, "udp"},
		{"no such TCP state", made[0], Change{TCP: TCPChange{State: 99}}, nil, "TCP_CONNTRACK_99"},
		{"TCP flags without a mask", made[0], Change{TCP: TCPChange{ReplyFlags: TCPLiberal}}, nil, "masks"},
	} {
		err := c.Update(within(t), tt.flow, tt.change)
		if !isOp(err, "update") || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: taken for another error: %v", tt.name, err)
		}
	}
	for _, f := range made {
		if got, err := c.Get(within(t), f.Original, 0); err != nil || static(got) != static(f) {
			t.Errorf("got %v, %v; want %v", got, err, f)
		}
	}
}

// TestUpdateComparesTheID shows that the kernel does not, and that Update does.
func TestUpdateComparesTheID(t *testing.T) {
	c, _ := emptyTable(t)
	f := create(t, c, entry(tupleTCP))[0]
	err := ask(t, c, opNew, familyIPv4, func(b *nfnl.Builder) {
		f.Original.encode(b, ctaTupleOrig, 0)
		b.U32(ctaID, f.ID+1)
		b.U32(ctaMark, 1)
	})
	t.Logf("SUPPORT: an update compares the ID in the kernel: %s", yesNo(err != nil))
	wrong := f
	wrong.ID++
	if err := c.Update(within(t), wrong, Change{Mark: 2}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "another entry") {
		t.Errorf("got %v", err)
	}
	if got, err := c.Get(within(t), f.Original, 0); err != nil || got.Mark == 2 {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestUpdateRace lets a packet set a status bit between the look-up and the
// update: the kernel refuses to clear it, and the update is made again.
func TestUpdateRace(t *testing.T) {
	f := parse(t, lineUDP)
	f.Status, f.Fields = Confirmed, f.Fields|FieldStatus
	for _, settles := range []bool{true, false} {
		updates := 0
		now := f
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if r.Type == subsystem<<8|opGet {
				return [][]byte{row(r, now), nfnltest.Acknowledge(r, 0, "", 0)}
			}
			var asked Flow
			must(t, decodeFlow(r.Data, &asked))
			if updates++; updates == 1 {
				now.Status |= SeenReply
			}
			if settles && asked.Status == now.Status|Assured {
				return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
			}
			return [][]byte{nfnltest.Acknowledge(r, syscall.EBUSY, "", 0)}
		})
		err := c.Update(t.Context(), f, Change{SetStatus: Assured})
		if errors.Is(err, syscall.EBUSY) == settles || updates != 2 && settles || updates > 3 {
			t.Errorf("settles %v: %v after %d updates", settles, err, updates)
		}
	}
}

// withLabels makes a rule that uses labels, so that entries get room for them.
func withLabels(t *testing.T, h *lab.Host) {
	t.Helper()
	lab.Tool(t, "nft")
	_, err := h.Exec(within(t), "nft", "add table inet l; add chain inet l c { type filter hook input priority 0; }; add rule inet l c ct label set 3")
	t.Logf("SUPPORT: connection labels: %s", yesNo(err == nil))
	if err != nil {
		t.Skip(err)
	}
}

// TestUpdateLabels sets and clears labels with and without a mask.
func TestUpdateLabels(t *testing.T) {
	c, h := emptyTable(t)
	withLabels(t, h)
	f := create(t, c, entry(tupleTCP))[0]
	for _, tt := range []struct {
		change Change
		want   Labels
	}{
		{Change{Labels: LabelSet(1, 100)}, LabelSet(1, 100)},
		{Change{Mark: 1}, LabelSet(1, 100)},
		{Change{Labels: LabelSet(2), LabelsMask: LabelSet(2, 100)}, LabelSet(1, 2)},
		{Change{LabelsMask: LabelSet(1)}, LabelSet(2)},
		{Change{Labels: LabelSet(127)}, LabelSet(127)},
		{Change{LabelsMask: allLabels}, Labels{}},
	} {
		must(t, c.Update(within(t), f, tt.change))
		if got, err := c.Get(within(t), f.Original, 0); err != nil || got.Details().Labels != tt.want {
			t.Errorf("%+v: %v, %v; want %v", tt.change, got.Details().Labels, err, tt.want)
		}
	}
}

// TestUpdateHelper confirms, tries to replace, and removes a helper.
func TestUpdateHelper(t *testing.T) {
	c, _ := emptyTable(t)
	f := withHelper(t, c)
	for _, tt := range []struct {
		change Change
		is     error
		want   string
	}{
		{Change{Helper: "ftp"}, nil, "ftp"},
		{Change{Helper: "nonesuch"}, errors.ErrUnsupported, "ftp"},
		{Change{RemoveHelper: true}, nil, ""},
		{Change{RemoveHelper: true}, nil, ""},
		{Change{Helper: "ftp"}, syscall.EBUSY, ""},
	} {
		err := c.Update(within(t), f, tt.change)
		if !errors.Is(err, tt.is) {
			t.Errorf("%+v: %v, want %v", tt.change, err, tt.is)
		}
		if got, err := c.Get(within(t), f.Original, 0); err != nil || got.Details().Helper != tt.want {
			t.Errorf("%+v: %q, %v; want %q", tt.change, got.Details().Helper, err, tt.want)
		}
	}
}

// withHelper makes an entry that the FTP helper follows.
func withHelper(t *testing.T, c *Conn) Flow {
	t.Helper()
	f := entry(tuple(ProtoTCP, "10.0.0.1:40000", "10.0.0.2:21")).WithDetails(Details{Helper: "ftp"})
	err := c.Create(within(t), f)
	t.Logf("SUPPORT: entries made with the FTP helper: %s", yesNo(err == nil))
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err)
	made, err := c.Get(within(t), f.Original, 0)
	must(t, err)
	return made
}
