package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"testing"
	"time"
)

var (
	tupleTCP  = tuple(ProtoTCP, "10.0.0.1:40000", "10.0.0.2:443")
	tupleUDP6 = tuple(ProtoUDP, "[fd00::1]:40000", "[fd00::2]:53")
	tupleEcho = Tuple{Proto: ProtoICMP, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), ICMPType: 8, ICMPID: 99}
)

// zoned are entries of one tuple in four zones, and translated as zones of one
// direction want it: two entries may not share a tuple and zone.
func zoned() (none, both, original, reply Flow) {
	none, both, original, reply = entry(tupleTCP), entry(tupleTCP), entry(tupleTCP), entry(tupleTCP)
	both.Zone = 7
	original.OriginalZone, original.Reply.DstPort = 9, 1
	reply.ReplyZone, reply.Original.SrcPort, reply.Reply.DstPort = 11, 2, 2
	return none, both, original, reply
}

// TestCreateAndGet makes entries and gets them by the tuple of either
// direction, in the direction's zone and in no other.
func TestCreateAndGet(t *testing.T) {
	c, _ := emptyTable(t)
	none, both, original, reply := zoned()
	translated := entry(tuple(ProtoTCP, "10.0.0.1:40000", "203.0.113.1:443"))
	translated.Reply = tuple(ProtoTCP, "10.0.0.3:8443", "192.0.2.1:1024")
	translated.Mark = 5
	echo := entry(tupleEcho)
	for i, f := range []Flow{none, both, original, reply, translated, entry(tupleUDP6), echo} {
		must(t, c.Create(within(t), f))
		for _, by := range []struct {
			tuple Tuple
			zone  uint16
		}{{f.Original, max(f.Zone, f.OriginalZone)}, {f.Reply, max(f.Zone, f.ReplyZone)}} {
			got, err := c.Get(within(t), by.tuple, by.zone)
			if err != nil || asCreated(got) != asCreated(f) {
				t.Errorf("%d, by %v: got %+v, %v\nwant %+v", i, by, plain(got), err, plain(f))
			}
			if !got.Has(FieldID|FieldTimeout|FieldStatus|FieldMark|FieldUse) || got.Status&Confirmed == 0 || got.Timeout > f.Timeout || got.Timeout < f.Timeout-patience {
				t.Errorf("%d: %+v", i, plain(got))
			}
			if got, err := c.Get(within(t), by.tuple, 5); got != (Flow{}) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d, in another zone: %v, %v", i, got, err)
			}
		}
	}
}

// asCreated leaves what Create takes.
func asCreated(f Flow) Flow {
	f = Flow{Original: f.Original, Reply: f.Reply, Zone: f.Zone, OriginalZone: f.OriginalZone, ReplyZone: f.ReplyZone, Mark: f.Mark, TCP: f.TCP}
	if f.Original.Proto != ProtoTCP {
		f.TCP = TCPInfo{}
	}
	return f
}

func TestGetAbsent(t *testing.T) {
	c, _ := emptyTable(t)
	create(t, c, entry(tupleTCP))
	other := tupleTCP
	other.SrcPort++
	for _, tt := range []struct {
		tuple Tuple
		zone  uint16
	}{{other, 0}, {tupleTCP, 1}, {tupleUDP6, 0}, {tupleEcho, 0}} {
		if got, err := c.Get(within(t), tt.tuple, tt.zone); got != (Flow{}) || !errors.Is(err, fs.ErrNotExist) || !isOp(err, "get") {
			t.Errorf("%v: %v, %v", tt, got, err)
		}
	}
}

// TestCreateExists makes entries that are there already, by the tuple of either
// direction.
func TestCreateExists(t *testing.T) {
	c, _ := emptyTable(t)
	f := entry(tupleTCP)
	made := create(t, c, f)[0]
	clash := f
	clash.Original.SrcPort++ // the reply tuple is taken
	inverted := entry(f.Reply)
	for name, f := range map[string]Flow{"again": f, "reply tuple": clash, "inverted": inverted} {
		if err := c.Create(within(t), f); !errors.Is(err, fs.ErrExist) || !isOp(err, "create") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := c.Get(within(t), f.Original, 0); err != nil || timeless(got) != timeless(made) {
		t.Errorf("got %v, %v; want %v", got, err, made)
	}
}

func TestCreateRefuses(t *testing.T) {
	c, _ := emptyTable(t)
	for name, spoil := range map[string]func(*Flow){
		"no timeout":        func(f *Flow) { f.Timeout = 0 },
		"under a second":    func(f *Flow) { f.Timeout = time.Second - 1 },
		"too long":          func(f *Flow) { f.Timeout = (1 << 32) * time.Second },
		"no original":       func(f *Flow) { f.Original = Tuple{} },
		"no reply":          func(f *Flow) { f.Reply = Tuple{} },
		"another family":    func(f *Flow) { f.Reply = tupleUDP6 },
		"two kinds of zone": func(f *Flow) { f.Zone, f.OriginalZone = 1, 2 },
		"no such TCP state": func(f *Flow) { f.TCP.State = 99 },
	} {
		f := entry(tupleTCP)
		spoil(&f)
		if err := c.Create(within(t), f); !isOp(err, "create") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if flows, err := all(t, c, nil); len(flows) != 0 || err != nil {
		t.Errorf("made %v, %v", flows, err)
	}
}

// TestDelete removes one entry after the other: each time one is gone, and a
// second time is fs.ErrNotExist.
func TestDelete(t *testing.T) {
	c, _ := emptyTable(t)
	none, both, original, reply := zoned()
	neighbour := none
	neighbour.Original.SrcPort++
	neighbour.Reply.DstPort++
	translated := entry(tuple(ProtoTCP, "10.0.0.1:40000", "203.0.113.1:443"))
	translated.Reply = tuple(ProtoTCP, "10.0.0.3:8443", "192.0.2.1:1024")
	left := create(t, c, none, both, original, reply, neighbour, translated, entry(tupleUDP6), entry(tupleEcho),
		entry(tuple(112, "10.0.0.1:0", "10.0.0.2:0")))
	for len(left) > 0 {
		f := left[0]
		left = left[1:]
		if err := c.Delete(within(t), f); err != nil {
			t.Errorf("%v: %v", f, err)
		}
		if err := c.Delete(within(t), f); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "delete") {
			t.Errorf("%v again: %v", f, err)
		}
		holds(t, c, left)
	}
}

// holds checks that the table has exactly these entries.
func holds(t *testing.T, c *Conn, want []Flow) {
	t.Helper()
	ids := make(map[uint32]Tuple)
	for _, f := range want {
		ids[f.ID] = f.Original
	}
	got, err := all(t, c, nil)
	must(t, err)
	for _, f := range got {
		if ids[f.ID] != f.Original {
			t.Errorf("has %v", f)
		}
	}
	if len(got) != len(want) || len(ids) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}

// innocents are entries that nobody wants changed, of several kinds.
func innocents(t testing.TB, c *Conn) []Flow {
	none, both, _, _ := zoned()
	return create(t, c, none, both, entry(tupleUDP6), entry(tupleEcho))
}

// spoiled are flows that are no entry of a table of innocents.
func spoiled(table []Flow) map[string]Flow {
	target, inZone, v6, echo := table[0], table[1], table[2], table[3]
	spoil := func(f Flow, how func(*Flow)) Flow { how(&f); return f }
	return map[string]Flow{
		"zero":                  {},
		"ID alone":              {ID: target.ID, Fields: FieldID},
		"bogus ID alone":        {ID: 1, Fields: FieldID},
		"mark alone":            {Mark: 1, Fields: FieldMark | FieldID},
		"zone alone":            {Zone: 7, Fields: FieldZone | FieldID},
		"status alone":          {Status: Confirmed, Fields: FieldStatus | FieldID},
		"tuple alone":           {Original: target.Original},
		"reply tuple alone":     {Reply: target.Reply, ID: target.ID, Fields: FieldID},
		"ID not told":           spoil(target, func(f *Flow) { f.Fields &^= FieldID }),
		"wrong ID":              spoil(target, func(f *Flow) { f.ID++ }),
		"no protocol":           spoil(target, func(f *Flow) { f.Original.Proto = 0 }),
		"wrong protocol":        spoil(target, func(f *Flow) { f.Original.Proto = ProtoUDP }),
		"unknown protocol":      spoil(target, func(f *Flow) { f.Original.Proto = 253 }),
		"no ports":              spoil(target, func(f *Flow) { f.Original.SrcPort, f.Original.DstPort = 0, 0 }),
		"wrong port":            spoil(target, func(f *Flow) { f.Original.SrcPort++ }),
		"no source":             spoil(target, func(f *Flow) { f.Original.Src = netip.Addr{} }),
		"no destination":        spoil(target, func(f *Flow) { f.Original.Dst = netip.Addr{} }),
		"unspecified addresses": spoil(target, func(f *Flow) { f.Original.Src, f.Original.Dst = netip.IPv4Unspecified(), netip.IPv4Unspecified() }),
		"mixed families":        spoil(target, func(f *Flow) { f.Original.Dst = netip.IPv6Unspecified() }),
		"mapped addresses":      spoil(target, func(f *Flow) { f.Original.Src, f.Original.Dst = mapped(f.Original.Src), mapped(f.Original.Dst) }),
		"scope zone":            spoil(v6, func(f *Flow) { f.Original.Src = f.Original.Src.WithZone("eth0") }),
		"zone left out":         spoil(inZone, func(f *Flow) { f.Zone = 0 }),
		"wrong zone":            spoil(inZone, func(f *Flow) { f.Zone = 8 }),
		"zone of a direction":   spoil(target, func(f *Flow) { f.OriginalZone = 3 }),
		"two kinds of zone":     spoil(inZone, func(f *Flow) { f.OriginalZone = 7 }),
		"no such ICMP type":     spoil(echo, func(f *Flow) { f.Original.ICMPType = 77 }),
		"wrong ICMP ID":         spoil(echo, func(f *Flow) { f.Original.ICMPID++ }),
		"another's ID":          spoil(target, func(f *Flow) { f.ID = inZone.ID }),
	}
}

// TestDeleteRefuses gives Delete what is not an entry. In ctnetlink a request
// that lacks a tuple the kernel accepts is a flush: nothing may be removed.
func TestDeleteRefuses(t *testing.T) {
	c, _ := emptyTable(t)
	table := innocents(t, c)
	tests := spoiled(table)
	for name, f := range tests {
		if err := c.Delete(within(t), f); !isOp(err, "delete") {
			t.Errorf("%s: %v", name, err)
		}
		holds(t, c, table)
	}
	if err := c.Delete(within(t), tests["wrong ID"]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("wrong ID: %v", err)
	}
}

func mapped(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }

// TestDeleteRecreated deletes with the ID of an earlier entry of the tuple. IDs
// come from where the entry lies in memory: what is made between takes the
// place of the earlier one, so that the later one lies elsewhere.
func TestDeleteRecreated(t *testing.T) {
	c, _ := emptyTable(t)
	old := create(t, c, entry(tupleTCP))[0]
	must(t, c.Delete(within(t), old))
	var between []Flow
	for i := range 100 {
		between = append(between, create(t, c, entry(tuple(ProtoTCP, fmt.Sprintf("10.0.1.1:%d", 1+i), "10.0.0.2:443")))...)
	}
	later := create(t, c, entry(tupleTCP))[0]
	if later.ID == old.ID {
		t.Skipf("the later entry has the ID of the earlier: %d", old.ID)
	}
	if err := c.Delete(within(t), old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	holds(t, c, append(between, later))
}
