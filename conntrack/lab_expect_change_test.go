package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// helped creates an entry with a helper and returns it.
func helped(t *testing.T, c *Conn, f Flow, helper string) Flow {
	t.Helper()
	m, err := encodeCreate(&f)
	must(t, err)
	b := nfnl.NewBuilder(m.Type, m.Flags)
	b.Raw(m.Data)
	b.Nested(ctaHelp, func() { b.String(ctaHelpName, helper) })
	err = c.nl.Do(within(t), b.Message(), nil)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("helper %s: %v", helper, err)
	}
	must(t, err)
	got, err := c.Get(within(t), f.Original, f.Zone)
	must(t, err)
	return got
}

// announced is an expectation to create: of a connection from the master's server
// to a port of its client.
func announced(master Tuple, port uint16) Expectation {
	return Expectation{
		Tuple:  Tuple{Proto: ProtoTCP, Src: master.Dst, Dst: master.Src, DstPort: port},
		Mask:   fullMask(master.Src),
		Master: master,
	}
}

var tupleFTP = tuple(ProtoTCP, "10.0.0.1:1000", "10.0.0.2:21")

// TestExpectationChanges creates, gets and deletes expectations, over both
// families and in a zone.
func TestExpectationChanges(t *testing.T) {
	c, _ := emptyTable(t)
	for name, master := range map[string]Flow{
		"IPv4": entry(tupleFTP),
		"IPv6": entry(tuple(ProtoTCP, "[fd00::1]:1000", "[fd00::2]:21")),
		"zone": func() Flow { f := entry(tupleFTP); f.Zone = 7; return f }(),
	} {
		t.Run(name, func(t *testing.T) {
			master = helped(t, c, master, "ftp")
			e := announced(master.Original, 40000)
			e.Zone, e.Timeout, e.Flags = master.Zone, 50*time.Second, ExpectInactive
			must(t, c.CreateExpectation(within(t), e))
			if err := c.CreateExpectation(within(t), e); !errors.Is(err, fs.ErrExist) || !isOp(err, "create expectation") {
				t.Errorf("created again: %v", err)
			}
			checkMade(t, c, e)
			got, err := c.Expectation(within(t), e.Tuple, e.Zone)
			must(t, err)
			wrong := got
			wrong.ID++
			if err := c.DeleteExpectation(within(t), wrong); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("deleted another: %v", err)
			}
			wrong = got
			wrong.Zone++
			if err := c.DeleteExpectation(within(t), wrong); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("deleted in another zone: %v", err)
			}
			checkMade(t, c, e)
			must(t, c.DeleteExpectation(within(t), got))
			if _, err := c.Expectation(within(t), e.Tuple, e.Zone); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "get expectation") {
				t.Errorf("after its deletion: %v", err)
			}
		})
	}
}

// checkMade compares an expectation with what the kernel has of it.
func checkMade(t *testing.T, c *Conn, want Expectation) {
	t.Helper()
	want.Helper = "ftp" // the master's
	want.Fields = ExpectFieldTimeout | ExpectFieldID | ExpectFieldFlags | ExpectFieldClass
	if want.Zone != 0 {
		want.Fields |= ExpectFieldZone
	}
	list := collectExpectations(t, c.ExpectationsOf(within(t), want.Master, want.Zone))
	got, err := c.Expectation(within(t), want.Tuple, want.Zone)
	must(t, err)
	if len(list) != 1 || list[0].ID != got.ID {
		t.Fatalf("listed %v, got %v", list, got)
	}
	most := want.Timeout
	for _, e := range []Expectation{got, list[0]} {
		if e.Timeout < most-patience || e.Timeout > most {
			t.Errorf("timeout %v, want %v", e.Timeout, most)
		}
		want.ID, want.Timeout = e.ID, e.Timeout
		if e != want {
			t.Errorf("got  %+v\nwant %+v", e, want)
		}
	}
}

// TestExpectationDeleteByID finds out whether the kernel compares the ID that
// it tells. DeleteExpectation works either way: see TestExpectationChanges.
func TestExpectationDeleteByID(t *testing.T) {
	c, _ := emptyTable(t)
	e := announced(helped(t, c, entry(tupleFTP), "ftp").Original, 40000)
	must(t, c.CreateExpectation(within(t), e))
	got, err := c.Expectation(within(t), e.Tuple, 0)
	must(t, err)
	req, err := got.encodeKey(opExpectDelete, true)
	must(t, err)
	err = c.nl.Do(within(t), req, nil)
	t.Logf("SUPPORT: expectation deleted by ID: %s", yesNo(err == nil))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err2 := c.Expectation(within(t), e.Tuple, 0); (err2 == nil) != (err != nil) {
		t.Errorf("deleted with %v, got with %v", err, err2)
	}
}

// TestExpectationsRemoved checks what each way of removing leaves. FTP's helper
// allows one expectation for a connection, IRC's several.
func TestExpectationsRemoved(t *testing.T) {
	c, _ := emptyTable(t)
	ftp := helped(t, c, entry(tupleFTP), "ftp").Original
	irc := helped(t, c, entry(tuple(ProtoTCP, "10.0.0.1:1000", "10.0.0.3:6667")), "irc").Original
	fill := func() {
		t.Helper()
		for _, e := range []Expectation{announced(ftp, 40000), announced(ftp, 40001), announced(irc, 40000), announced(irc, 40001)} {
			must(t, c.CreateExpectation(within(t), e))
		}
		leaves(t, c, announced(ftp, 40001), announced(irc, 40000), announced(irc, 40001))
	}
	fill()
	must(t, c.DeleteExpectationsOfHelper(within(t), "no-such-helper"))
	leaves(t, c, announced(ftp, 40001), announced(irc, 40000), announced(irc, 40001))
	must(t, c.DeleteExpectationsOfHelper(within(t), "irc"))
	leaves(t, c, announced(ftp, 40001))
	must(t, c.FlushExpectations(within(t)))
	leaves(t, c)
	fill() // the masters are there
}

// leaves checks which expectations there are.
func leaves(t *testing.T, c *Conn, want ...Expectation) {
	t.Helper()
	got := make(map[Tuple]Tuple)
	for _, e := range collectExpectations(t, c.Expectations(within(t))) {
		got[e.Tuple] = e.Master
	}
	for _, e := range want {
		if got[e.Tuple] != e.Master {
			t.Errorf("%v is missing", e)
		}
		delete(got, e.Tuple)
	}
	if len(got) != 0 {
		t.Errorf("too many: %v", got)
	}
}

// TestExpectationRefusals checks the kernel's answers.
func TestExpectationRefusals(t *testing.T) {
	c, _ := emptyTable(t)
	plainFlow := create(t, c, entry(tupleTCP))[0]
	ftp := helped(t, c, entry(tupleFTP), "ftp")
	for range c.ExpectationsOf(within(t), plainFlow.Original, 0) {
		t.Error("expectations of a connection without a helper")
	}
	gone := tupleFTP
	gone.SrcPort++
	for _, err := range c.ExpectationsOf(within(t), gone, 0) {
		if !errors.Is(err, fs.ErrNotExist) || !isOp(err, "expectations") {
			t.Errorf("of no connection: %v", err)
		}
	}
	if err := c.CreateExpectation(within(t), announced(gone, 40000)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a master: %v", err)
	}
	if err := c.CreateExpectation(within(t), announced(plainFlow.Original, 40000)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a master without a helper: %v", err)
	}
	unknown := announced(ftp.Original, 40000)
	unknown.Helper = "no-such-helper"
	err := c.CreateExpectation(within(t), unknown)
	t.Logf("SUPPORT: expectation with a helper of its own: %s", yesNo(err != nil))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of an unknown helper: %v", err)
	}
	must(t, c.FlushExpectations(within(t)))
	led := announced(ftp.Original, 40000)
	led.NAT = ExpectationNAT{Reply: true, Tuple: Tuple{Proto: ProtoTCP, Src: netip.MustParseAddr("10.0.0.9"), SrcPort: 9}}
	led.Fields |= ExpectFieldNAT
	if err := c.CreateExpectation(within(t), led); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no NAT in this kernel")
	} else if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Expectation(within(t), led.Tuple, 0); err != nil || got.NAT != led.NAT || !got.Has(ExpectFieldNAT) {
		t.Errorf("with NAT: %+v, %v", got, err)
	}
}

// TestExpectationEventsAgainstTool compares with conntrack -E expect, which
// begins to listen somewhat later.
func TestExpectationEventsAgainstTool(t *testing.T) {
	lab.Tool(t, "conntrack")
	c, h := emptyTable(t)
	events := recordExpectations(t, c)
	ctx, stop := context.WithCancel(within(t))
	out := make(chan []byte, 1)
	go func() {
		b, _ := h.Exec(ctx, "conntrack", "-E", "expect") // ends by being killed
		out <- b
	}()
	master := helped(t, c, entry(tupleFTP), "ftp").Original
	var ours strings.Builder
	for range 20 {
		must(t, c.CreateExpectation(within(t), announced(master, 40000)), c.FlushExpectations(within(t)))
		for range 2 {
			fmt.Fprintln(&ours, nextExpectation(t, events))
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	theirs := string(<-out)
	if !strings.HasSuffix(ours.String(), theirs) || theirs == "" {
		t.Errorf("got\n%swant\n%s", &ours, theirs)
	}
}

// TestExpectationsAgainstTool compares with conntrack -L expect.
func TestExpectationsAgainstTool(t *testing.T) {
	lab.Tool(t, "conntrack")
	f := newFTP(t)
	f.connect(f.server.Addr4())
	_, addr := f.listen(f.client, f.client.Addr4())
	f.say(f.control, f.served, "PORT "+commas(addr))
	irc := helped(t, f.tracker, entry(tupleTCP), "irc").Original
	ftp6 := helped(t, f.tracker, entry(tuple(ProtoTCP, "[fd00::1]:1000", "[fd00::2]:21")), "ftp").Original
	for _, e := range []Expectation{announced(irc, 1000), announced(irc, 1001), announced(irc, 1002), announced(ftp6, 1003)} {
		e.Flags, e.Timeout = ExpectFlags(e.Tuple.DstPort-1000), 99*time.Second
		must(t, f.tracker.CreateExpectation(within(t), e))
	}
	eventually(t, func() (got, want map[string]int) {
		got, want = make(map[string]int), make(map[string]int)
		for _, e := range collectExpectations(t, f.tracker.Expectations(within(t))) {
			left, rest, _ := strings.Cut(e.String(), " ")
			got[rest] = atoi(t, left)
		}
		if len(got) != 5 {
			t.Errorf("%d expectations, want 5", len(got))
		}
		for _, family := range []string{"ipv4", "ipv6"} {
			out, err := f.host.Exec(within(t), "conntrack", "-L", "expect", "-f", family)
			must(t, err)
			for line := range strings.Lines(string(out)) {
				left, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				want[rest] = atoi(t, left)
			}
		}
		return got, want
	})
}
