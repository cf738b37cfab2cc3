package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// ask sends a request as raw as this package never does.
func ask(t testing.TB, c *Conn, op, family uint8, write func(b *nfnl.Builder)) error {
	t.Helper()
	b := nfnl.NewNetfilter(subsystem, op, 0, family)
	write(b)
	return c.nl.Do(within(t), b.Message(), nil)
}

// TestTraps shows what the other safety tests are about: requests to delete one
// entry that empty the table, of all families, and are answered with success.
// The first of them do in every kernel.
func TestTraps(t *testing.T) {
	c, _ := emptyTable(t)
	for _, trap := range []struct {
		name   string
		always bool
		family uint8
		write  func(b *nfnl.Builder)
	}{
		{"nothing", true, familyUnspec, func(*nfnl.Builder) {}},
		{"only an ID", true, familyUnspec, func(b *nfnl.Builder) { b.U32(ctaID, 1) }},
		{"only an ID, of one family", true, familyIPv4, func(b *nfnl.Builder) { b.U32(ctaID, 1) }},
		{"only labels", true, familyUnspec, func(b *nfnl.Builder) { b.Bytes(ctaLabels, make([]byte, 16)) }},
		{"only a timeout", true, familyUnspec, func(b *nfnl.Builder) { b.U32(ctaTimeout, 1) }},
		{"only a master", true, familyUnspec, func(b *nfnl.Builder) { tupleTCP.encode(b, ctaTupleMaster, 0) }},
		{"only an unknown attribute", false, familyUnspec, func(b *nfnl.Builder) { b.U32(200, 1) }},
		{"only a zone", false, familyUnspec, func(b *nfnl.Builder) { b.U16(ctaZone, 99) }},
		{"only a status", false, familyUnspec, func(b *nfnl.Builder) { b.U32(ctaStatus, uint32(Dying)) }},
		{"only a mark", false, familyUnspec, func(b *nfnl.Builder) { b.U32(ctaMark, 99); b.U32(ctaMarkMask, 99) }},
	} {
		innocents(t, c)
		err := ask(t, c, opDelete, trap.family, trap.write)
		left := count(t, c, nil)
		if trap.always && (left != 0 || err != nil) {
			t.Errorf("%s: %d entries are left, %v", trap.name, left, err)
		}
		if !trap.always {
			t.Logf("SUPPORT: a delete request with %s leaves the other entries: %s", trap.name, yesNo(left > 0))
		}
		must(t, c.Flush(within(t)))
	}
}

// TestNoInputEmptiesATable gives every call what is no entry of the table, or
// next to none. All entries stay, and stay as they are.
func TestNoInputEmptiesATable(t *testing.T) {
	c, _ := emptyTable(t)
	table := innocents(t, c)
	wrong := spoiled(table)
	untouched := func(what string) {
		t.Helper()
		want := make(map[Flow]bool)
		for _, f := range table {
			want[static(f)] = true
		}
		for f, err := range c.All(within(t), nil) {
			if must(t, err); !want[static(f)] || f.Timeout < 10*time.Second {
				t.Errorf("%s changed %v", what, f)
			}
			delete(want, static(f))
		}
		if len(want) > 0 {
			t.Errorf("%s removed %v", what, want)
		}
	}
	for name, f := range wrong {
		if err := c.Update(within(t), f, Change{Timeout: time.Second, Mark: 1}); !isOp(err, "update") {
			t.Errorf("update %s: %v", name, err)
		}
		untouched("update " + name)
		report, err := c.DeleteAll(within(t), slices.Values([]Flow{f}), nil)
		if err != nil || report.Gone+report.Changed+report.Refused != 1 || report.Total() != 1 {
			t.Errorf("delete %s: %v, %v", name, report, err)
		}
		untouched("delete " + name)
	}
	for name, filter := range map[string]*Filter{
		"nil": nil, "zero": {},
		"no family": {IPv4Only: true, IPv6Only: true}, "no protocol of these": {Proto: 253},
		"no such status": {StatusSet: Dying}, "no status twice": {StatusSet: Confirmed, StatusUnset: Confirmed},
		"no such state": {TCPStates: 1 << 15}, "no prefix": {Src: netip.PrefixFrom(netip.IPv4Unspecified(), 99)},
		"no address": {Dst: netip.PrefixFrom(netip.Addr{}, 1)}, "mapped addresses": {Src: netip.MustParsePrefix("::ffff:203.0.113.0/120")},
	} {
		report, err := c.DeleteMatching(within(t), filter, nil)
		if report.Total() != 0 || (filter == nil || *filter == Filter{}) != isOp(err, "delete") {
			t.Errorf("delete matching %s: %v, %v", name, report, err)
		}
		untouched("delete matching " + name)
	}
}

// static leaves of an entry what time and looking at it do not change.
func static(f Flow) Flow {
	f.Use = 0
	return timeless(f)
}

// TestUpdateNeverCreates updates an entry that went.
func TestUpdateNeverCreates(t *testing.T) {
	c, _ := emptyTable(t)
	f := create(t, c, entry(tupleTCP))[0]
	must(t, c.Delete(within(t), f))
	for _, change := range []Change{{}, {Timeout: time.Hour}, {Mark: 1}, {SetStatus: Assured}} {
		if err := c.Update(within(t), f, change); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "update") {
			t.Errorf("%+v: %v", change, err)
		}
	}
	holds(t, c, nil)
}

// TestFlush empties a table of several families and zones, and another
// namespace's stays.
func TestFlush(t *testing.T) {
	c, _ := emptyTable(t)
	other, _ := emptyTable(t)
	innocents(t, c)
	stay := innocents(t, other)
	must(t, c.Flush(within(t)))
	holds(t, c, nil)
	holds(t, other, stay)
	must(t, c.Flush(within(t))) // empty already
}

// FuzzChangeRequests makes requests of any flow. A delete request is refused or
// has a whole tuple and the ID; an update request too, and never makes an entry.
func FuzzChangeRequests(f *testing.F) {
	a4, a6 := netip.MustParseAddr("10.0.0.1").AsSlice(), netip.MustParseAddr("fd00::1").AsSlice()
	f.Add(a4, a4, uint8(6), uint16(1), uint16(2), uint16(0), uint16(0), uint32(7), uint32(FieldID), uint32(1), uint32(0), "")
	f.Add(a6, a6, uint8(58), uint16(1), uint16(2), uint16(3), uint16(0), uint32(7), uint32(FieldID), uint32(0), uint32(9), "ftp")
	f.Add(a4, a6, uint8(0), uint16(0), uint16(0), uint16(3), uint16(4), uint32(0), uint32(0), uint32(0), uint32(0), "\x00")
	f.Fuzz(func(t *testing.T, src, dst []byte, proto uint8, sport, dport, zone, original uint16, id, fields, mark, mask uint32, helper string) {
		flow := Flow{ID: id, Fields: Fields(fields), Zone: zone, OriginalZone: original}
		flow.Original = Tuple{Proto: Proto(proto), SrcPort: sport, DstPort: dport, ICMPID: sport, ICMPType: uint8(dport)}
		flow.Original.Src, _ = netip.AddrFromSlice(src)
		flow.Original.Dst, _ = netip.AddrFromSlice(dst)
		if m, err := encodeDelete(&flow); err == nil {
			if _, bad := isOfEntry(m, &flow); bad != nil || m.Type != subsystem<<8|opDelete {
				t.Errorf("delete: %v", bad)
			}
		}
		change := Change{Mark: mark, MarkMask: mask, Helper: helper, SetStatus: Status(mark), Timeout: time.Duration(mask) * time.Second}
		if m, err := encodeUpdate(&flow, &change, Confirmed); err == nil {
			if _, bad := isOfEntry(m, &flow); bad != nil || m.Type != subsystem<<8|opNew || m.Flags != nfnl.Request {
				t.Errorf("update: %v, flags %#x", bad, m.Flags)
			}
		}
	})
}

// isOfEntry decodes a request, and says why it is not one about the flow alone.
func isOfEntry(m nfnl.Message, f *Flow) (Flow, error) {
	var got Flow
	if err := decodeFlow(m.Data, &got); err != nil {
		return got, err
	}
	t := got.Original
	switch {
	case t != portable(f.Original) || !t.Src.IsValid() || !t.Dst.IsValid() || t.Src.Is4() != t.Dst.Is4():
		return got, fmt.Errorf("tuple %v of %v", t, f.Original)
	case m.Data[0] != t.family() || m.Data[1] != 0:
		return got, fmt.Errorf("family %d, version %d", m.Data[0], m.Data[1])
	case !got.Has(FieldID) || got.ID != f.ID || !f.Has(FieldID):
		return got, fmt.Errorf("ID %d of %d, %v", got.ID, f.ID, f.Fields)
	case got.Zone != f.Zone || got.OriginalZone != f.OriginalZone:
		return got, fmt.Errorf("zones %d, %d of %d, %d", got.Zone, got.OriginalZone, f.Zone, f.OriginalZone)
	}
	return got, nil
}
