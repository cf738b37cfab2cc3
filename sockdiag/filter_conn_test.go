package sockdiag

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// ageing is a fake kernel that knows only some operations of bytecode.
type ageing struct {
	lacks      optional // EINVAL
	privileged bool
	asked      [][]byte // the bytecode of each request
	rows       []Socket
}

func (k *ageing) answer(r nfnltest.Request) [][]byte {
	var code []byte
	for a := nfnl.Walk(r.Data[requestLen:]); a.Next(); {
		if a.Type == requestBytecode {
			code = slices.Clone(a.Value)
		}
	}
	k.asked = append(k.asked, code)
	for at := 0; at < len(code); at += int(code[at+1]) {
		switch {
		case k.lacks&(1<<code[at]) != 0:
			return [][]byte{nfnltest.Acknowledge(r, syscall.EINVAL, "", 0)}
		case code[at] == opMark && !k.privileged:
			return [][]byte{nfnltest.Acknowledge(r, syscall.EPERM, "", 0)}
		}
	}
	var answer [][]byte
	for _, s := range k.rows {
		e := entryOf(&s, false)
		if s.Family == Family(r.Data[0]) && (len(code) == 0 || run(code, &e)) {
			answer = append(answer, row(r.Seq, s))
		}
	}
	return append(answer, done(r.Seq))
}

func (k *ageing) dial(t *testing.T) *Conn {
	nl, _ := nfnltest.Dial(k.answer)
	c := &Conn{nl: nl}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// operations are the codes that bytecode holds.
func operations(code []byte) (codes []byte) {
	for at := 0; at < len(code); at += int(code[at+1]) {
		codes = append(codes, code[at])
	}
	return codes
}

// TestFilterFallback asks kernels that lack operations: the answer is the same,
// and they are not asked so again.
func TestFilterFallback(t *testing.T) {
	want := numbered(IPv4, 443)
	want.Interface, want.Mark, want.CgroupID, want.Fields = 2, 1, 3, FieldMark|FieldCgroup
	other := numbered(IPv4, 444)
	other.Interface, other.Mark, other.CgroupID, other.Fields = 2, 1, 4, FieldMark|FieldCgroup
	f := And(Remote(prefix("192.0.2.2/32")), OnInterface(2), HasMark(1, 7), InCgroup(3))
	for name, c := range map[string]struct {
		kernel ageing
		asked  int // until it answers
		left   []byte
	}{
		"Linux 5.8": {ageing{privileged: true}, 1, []byte{opRemote, opInterface, opMark, opCgroup}},
		"Linux 4.9": {ageing{lacks: optionalCgroup, privileged: true}, 2, []byte{opRemote, opInterface, opMark}},
		"Linux 4.8": {ageing{lacks: optionalCgroup | optionalMark}, 3, []byte{opRemote, opInterface}},
		"Linux 4.4": {ageing{lacks: optionalCgroup | optionalMark | optionalInterface}, 4, []byte{opRemote}},
	} {
		t.Run(name, func(t *testing.T) {
			k := c.kernel
			k.rows = []Socket{want, other}
			conn := k.dial(t)
			q := Query{Family: IPv4, Filter: f}
			got, err := collect(t.Context(), conn, q)
			if err != nil || !slices.Equal(got, []Socket{want}) {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
			if last := k.asked[len(k.asked)-1]; len(k.asked) != c.asked || string(operations(last)) != string(c.left) {
				t.Errorf("asked %d times, last with %v; want %d, %v", len(k.asked), operations(last), c.asked, c.left)
			}
			if _, err := conn.Snapshot(t.Context(), q); err != nil || len(k.asked) != c.asked+1 {
				t.Errorf("asked %d times more, want once: %v", len(k.asked)-c.asked, err)
			}
			plan, err := conn.Explain(q)
			if err != nil || len(plan.Left) != 4-len(c.left) || string(operations(plan.Dumps[0].Bytecode)) != string(c.left) {
				t.Errorf("explained as %v, %v", plan, err)
			}
		})
	}
}

// TestFilterRefused: an error that does not come from the bytecode is told, and
// nothing is learned from it.
func TestFilterRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EPERM, syscall.ENOMEM} {
		asked := 0
		nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
			asked++
			return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
		})
		c := &Conn{nl: nl}
		got, err := collect(t.Context(), c, Query{Family: IPv4, Filter: Or(HasMark(1, 1), InCgroup(1), OfFamily(IPv6))})
		if len(got) != 0 || !errors.Is(err, errno) || c.refusedOperations() != 0 {
			t.Errorf("%v: %v, %v, refused %b", errno, got, err, c.refusedOperations())
		}
		if want := map[syscall.Errno]int{syscall.EINVAL: 3, syscall.EPERM: 1, syscall.ENOMEM: 1}[errno]; asked != want {
			t.Errorf("%v: asked %d times, want %d", errno, asked, want)
		}
		if errno == syscall.EPERM && (!errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "marks takes CAP_NET_ADMIN")) {
			t.Errorf("%v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFilterRefusedLate: rows that were told are not told again.
func TestFilterRefusedLate(t *testing.T) {
	nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
		return [][]byte{row(r.Seq, numbered(IPv4, 1)), nfnltest.Done(r.Seq, syscall.EINVAL)}
	})
	c := &Conn{nl: nl}
	defer c.Close() //nolint:errcheck // nothing under way
	got, err := collect(t.Context(), c, Query{Family: IPv4, Filter: Or(OnInterface(0), InCgroup(1))})
	if len(got) != 1 || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("%d rows, %v; want 1 and EINVAL", len(got), err)
	}
}

// TestFilterHeader: ports and states go into the header, and a family without
// an answer is not asked.
func TestFilterHeader(t *testing.T) {
	for text, want := range map[string]DumpPlan{
		"sport = :80 and dport = :443":                  {Family: IPv4, States: allStates, LocalPort: 80, RemotePort: 443},
		"sport = :80 or sport = :80 and autobound":      {Family: IPv4, States: allStates, LocalPort: 80, Empty: true},
		"state established ( sport = 80 )":              {Family: IPv4, States: States(Established), LocalPort: 80},
		"state listening or ( state closed sport < 1 )": {Family: IPv4, States: States(Listen, Close, BoundInactive) &^ (1 << BoundInactive)},
		"state syn-recv":                                {Family: IPv4, States: pendingStates},
		"state bound-inactive":                          {Family: IPv4, States: States(Close, BoundInactive)},
		"not ( not state time-wait )":                   {Family: IPv4, States: States(TimeWait)},
		"sport >= 80 and not sport > 80":                {Family: IPv4, States: allStates, LocalPort: 80},
		"sport = 80 and sport = 81":                     {Family: IPv4, Empty: true},
		"dst [2001:db8::]/32":                           {Family: IPv4, States: allStates, Empty: true},
		"src inet6:* and uid = 7":                       {Family: IPv4, States: allStates, Empty: true},
		"uid = 7":                                       {Family: IPv4, States: allStates},
		"not state time-wait":                           {Family: IPv4, States: allStates &^ States(TimeWait)},
		"sport > :65535":                                {Family: IPv4, Empty: true},
		"sport < :0 or dport = :1":                      {Family: IPv4, States: allStates, RemotePort: 1},
		"uid = 7 or sport = 80":                         {Family: IPv4, States: allStates},
		"state listening and exclude all":               {Family: IPv4, Empty: true},
		"uid = 7 and not ( dport != :443 )":             {Family: IPv4, States: allStates, RemotePort: 443},
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := Query{Filter: f}.plan(IPv4, 0)
		if got.States != want.States && !want.Empty || got.LocalPort != want.LocalPort || got.RemotePort != want.RemotePort ||
			(got.Empty != want.Empty) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	f, err := ParseFilter("sport = :80 and ( sport = :81 or dport = :443 or dport = :444 )")
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := (Query{Filter: f}).plan(IPv4, 0); len(d.Bytecode) != 28 {
		t.Errorf("%v: want the two remote ports in bytecode", d)
	}
	q := Query{Filter: Local(prefix("2001:db8::/32"))}
	if families, err := q.families(); err != nil || !slices.Equal(families, []Family{IPv6}) {
		t.Errorf("%v, %v; want IPv6 alone", families, err)
	}
	q = Query{LocalPort: 80, States: States(Listen), Filter: InState(States(Listen, Established))}
	if d, left := q.plan(IPv6, 0); d.States != States(Listen) || d.LocalPort != 80 || len(left)+len(d.Bytecode) != 0 {
		t.Errorf("%v, %v left", d, left)
	}
	q = Query{LocalPort: 80, Filter: LocalPort(Equal, 81)}
	if d, _ := q.plan(IPv6, 0); !d.Empty {
		t.Errorf("%v, want empty", d)
	}
	q = Query{Protocol: SCTP, Filter: LocalPort(Equal, 81)}
	if d, left := q.plan(IPv6, 0); d.LocalPort != 0 || len(d.Bytecode) != 0 || len(left) != 1 {
		t.Errorf("SCTP: %v, %v left", d, left)
	}
}

// TestFilterRequest: the code is the first attribute behind the header.
func TestFilterRequest(t *testing.T) {
	q := Query{Protocol: MPTCP, Filter: And(LocalPort(Equal, 80), OnInterface(1))}
	m := q.request(IPv6)
	if port := binary.BigEndian.Uint16(m.Data[8:]); port != 80 {
		t.Errorf("port %d", port)
	}
	var types []uint16
	for a := nfnl.Walk(m.Data[requestLen:]); a.Next(); {
		types = append(types, a.Type)
		if a.Type == requestBytecode && !audit(a.Value) {
			t.Errorf("bytecode %x", a.Value)
		}
	}
	if !slices.Equal(types, []uint16{requestBytecode, requestProtocol}) {
		t.Errorf("attributes %v", types)
	}
}

func TestExplain(t *testing.T) {
	f, err := ParseFilter("state established dport = :22 and ( src 10.0.0.0/8 or src [2001:db8::]/32:443 or sport >= 1024 ) and " +
		"uid = 7 and ! fwmark = 1/3 and ( autobound or cgroup id:7 or dev = 2 )")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Query{Filter: f}.Explain()
	if err != nil {
		t.Fatal(err)
	}
	const want = `tcp IPv4: state established, remote port 22, 92 bytes of bytecode
     0  S_COND 10.0.0.0/8, else 20
    16  go to 28
    20  S_GE 1024, else skip
`
	got := plan.String()
	if !strings.HasPrefix(got, want) || len(plan.Dumps) != 2 || len(plan.Left) != 1 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, part := range []string{
		"S_COND 2001:db8::/32, else", "S_COND port 443", "MARK_COND 0x1/0x3", "AUTO, else", "S_GE 32768", "CGROUP_COND 7", "DEV_COND 2",
		"left to Match: uid = 7 (the kernel has no operation for it)\n",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
	plan, err = Query{Protocol: UDP, Filter: Local(prefix("::1/128"))}.Explain()
	if err != nil || !strings.HasPrefix(plan.String(), "udp IPv4: not asked, nothing there can match\nudp IPv6: state all, 28 bytes") {
		t.Errorf("%v, %v", plan, err)
	}
	var op *OpError
	if _, err := (Query{Family: 1}).Explain(); !errors.As(err, &op) {
		t.Errorf("%v, want an *OpError", err)
	}
}
