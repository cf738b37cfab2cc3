package conntrack

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
)

// processors lets as many threads run Go code at once, whatever the machine
// has.
func processors(t testing.TB, n int) {
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// collected counts the flows of a dump, as what they were created, and returns its
// error, which must come last and with the zero Flow.
func collected(t testing.TB, flows iter.Seq2[Flow, error]) (map[Flow]int, error) {
	t.Helper()
	seen := make(map[Flow]int)
	var last error
	for f, err := range flows {
		switch {
		case last != nil:
			t.Errorf("%v, %v after an error", f, err)
		case err != nil && f != (Flow{}):
			t.Errorf("%v with %+v", err, plain(f))
		case err != nil:
			last = err
		default:
			seen[timeless(f)]++
		}
	}
	return seen, last
}

// partly are n flows as a kernel lists them: a half of them, the second of each
// two, has the status.
func partly(n int, status Status) []Flow {
	list := flows(n)
	for i := range list {
		list[i].ID, list[i].Fields = uint32(i), FieldStatus|FieldTimeout|FieldID
		list[i].TCP = TCPInfo{}
		list[i].Status = Confirmed
		if i%2 == 1 {
			list[i].Status |= status
		}
	}
	return list
}

// filterOf is the filter of a dump request.
func filterOf(r nfnltest.Request) Filter {
	f := Filter{IPv4Only: r.Data[0] == familyIPv4, IPv6Only: r.Data[0] == familyIPv6}
	value, mask := Status(0), Status(0)
	for a := nfnl.Walk(r.Data[nfgenmsgLen:]); a.Next(); {
		switch a.Type {
		case ctaStatus:
			value = Status(a.U32())
		case ctaStatusMask:
			mask = Status(a.U32())
		}
	}
	f.StatusSet, f.StatusUnset = value&mask, mask&^value
	return f
}

// listing is a kernel that filters its flows by family, and by status if it
// is told to, and notes what it was asked and how many rows it sent.
type listing struct {
	flows  []Flow
	status bool

	mu   sync.Mutex
	sent map[Filter]int
}

func (l *listing) handle(r nfnltest.Request) [][]byte {
	if r.Type == 0x105 {
		return counted(smallTable)(r)
	}
	f := filterOf(r)
	by := f
	if !l.status {
		by.StatusSet, by.StatusUnset = 0, 0
	}
	var out [][]byte
	for i := range l.flows {
		if by.Match(&l.flows[i]) {
			out = append(out, row(r, l.flows[i]))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[f] += len(out)
	return append(out, nfnltest.Done(r.Seq, 0))
}

// TestParallel compares with All what is yielded of tables that divide in
// several ways, by kernels that know the filter and by such as do not.
func TestParallel(t *testing.T) {
	processors(t, 2)
	const n = 3000
	even, odd := Filter{StatusSet: Assured}, Filter{StatusUnset: Assured}
	tests := map[string]struct {
		flows  []Flow
		status bool
		filter *Filter
		sent   map[Filter]int // besides the sample
	}{
		"by status":        {partly(n, Assured), true, nil, map[Filter]int{even: n / 2, odd: n / 2}},
		"status ignored":   {partly(n, Assured), false, nil, map[Filter]int{even: n, odd: n}},
		"by family":        {partly(n, 0), true, nil, map[Filter]int{{IPv4Only: true}: n * 17 / 20, {IPv6Only: true}: n * 3 / 20}},
		"nothing to do by": {partly(n, 0), true, &Filter{IPv4Only: true}, map[Filter]int{{IPv4Only: true}: n * 17 / 20}},
		"small":            {partly(1000, Assured), true, nil, map[Filter]int{}},
		"as the sample":    {partly(sampleSize, Assured), true, nil, map[Filter]int{}},
		"with a filter": {partly(n, Assured), true, &Filter{Proto: ProtoUDP, StatusSet: Confirmed}, map[Filter]int{
			{StatusSet: Confirmed | Assured}: n / 2, {StatusSet: Confirmed, StatusUnset: Assured}: n / 2}},
		"small, with a filter": {partly(1000, Assured), true, &Filter{Proto: ProtoUDP}, map[Filter]int{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := &listing{flows: tt.flows, status: tt.status, sent: make(map[Filter]int)}
			c, _ := fake(t, l.handle)
			want, err := collected(t, c.All(t.Context(), tt.filter))
			must(t, err)
			clear(l.sent)
			got, err := collected(t, c.Parallel(t.Context(), tt.filter))
			if !maps.Equal(got, want) || err != nil {
				t.Errorf("%d flows, %v; want %d", len(got), err, len(want))
			}
			whole := filterOf(nfnltest.Request{Data: dumpRequest(tt.filter).Data})
			if l.sent[whole] -= l.rows(whole); l.sent[whole] == 0 {
				delete(l.sent, whole)
			}
			if !maps.Equal(l.sent, tt.sent) {
				t.Errorf("sent %v, want %v", l.sent, tt.sent)
			}
		})
	}
}

// TestParallelNotWorthIt reads with one socket what a second would not make
// faster.
func TestParallelNotWorthIt(t *testing.T) {
	list := partly(3000, Assured)
	for name, tt := range map[string]struct {
		processors int
		count      uint32
	}{"one processor": {1, smallTable}, "small table": {2, smallTable - 1}} {
		processors(t, tt.processors)
		dumps := 0
		c, _ := fake(t, func(r nfnltest.Request) [][]byte {
			if r.Flags&nfnl.DumpAll != 0 {
				dumps++
			}
			return counted(tt.count, list...)(r)
		})
		if got, err := collected(t, c.Parallel(t.Context(), nil)); len(got) != 3000 || err != nil || dumps != 1 {
			t.Errorf("%s: %d flows, %v; %d dumps", name, len(got), err, dumps)
		}
	}
}

// rows is how many flows the kernel lists for a filter.
func (l *listing) rows(f Filter) (n int) {
	for i := range l.flows {
		if f.Match(&l.flows[i]) {
			n++
		}
	}
	return n
}

func TestDivide(t *testing.T) {
	tests := map[string]struct {
		change func(i int, f *Flow)
		want   half
		even   bool
	}{
		"nothing":           {func(int, *Flow) {}, half{}, false},
		"too few":           {func(i int, f *Flow) { f.Status |= bitIf(i%11 == 0, SeenReply) }, half{}, false},
		"a tenth":           {func(i int, f *Flow) { f.Status |= bitIf(i%10 == 0, SeenReply) }, half{set: SeenReply}, true},
		"nine tenths":       {func(i int, f *Flow) { f.Status |= bitIf(i%10 != 0, SeenReply) }, half{set: SeenReply}, true},
		"the more even":     {func(i int, f *Flow) { f.Status |= bitIf(i%3 == 0, Assured) | bitIf(i%2 == 0, SeenReply) }, half{set: SeenReply}, true},
		"the steadier":      {func(i int, f *Flow) { f.Status |= bitIf(i%25 < 12, SrcNAT) | bitIf(i%2 == 0, SeenReply) }, half{set: SrcNAT}, true},
		"mark":              {func(i int, f *Flow) { f.Mark = 0x10 | uint32(i%2)*3<<30 }, half{mark: 1 << 31, mask: 1 << 31}, true},
		"family":            {func(i int, f *Flow) { f.Original = flows(6)[i%2*4].Original }, half{v4: true}, true},
		"status is missing": {func(i int, f *Flow) { f.Status, f.Fields = bitIf(i%2 == 0, SeenReply), 0 }, half{}, false},
	}
	for name, tt := range tests {
		s := sample{flows: make([]Flow, 1000), marks: freeMarks(&Filter{MarkMask: 1 << 30})}
		for i := range s.flows {
			s.flows[i] = Flow{Original: flows(1)[0].Original, Status: Confirmed, Fields: FieldStatus}
			tt.change(i, &s.flows[i])
		}
		if got, even := s.divide(); got[0] != tt.want || even != tt.even {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, even, tt.want)
		}
	}
	if got := freeMarks(&Filter{Mark: 1}); got != 0 {
		t.Errorf("beside a whole mark, %#x is free", got)
	}
	for _, d := range divisions {
		for _, f := range partly(40, Status(1<<16-1)) {
			first, second := d[0].of(nil), d[1].of(nil)
			if first.Match(&f) == second.Match(&f) {
				t.Errorf("%+v: %v is in both or none", d, f)
			}
		}
	}
}

func bitIf(yes bool, bit Status) Status {
	if yes {
		return bit
	}
	return 0
}

// broken is a kernel whose dump of one half is answered by h, and of the other
// and the sample as it should be.
func broken(l *listing, h nfnltest.Handler) nfnltest.Handler {
	return func(r nfnltest.Request) [][]byte {
		if filterOf(r).StatusSet == Assured {
			return h(r)
		}
		return l.handle(r)
	}
}

// TestParallelEnds ends a dump in every way while both halves are read. None
// may leave a goroutine behind.
func TestParallelEnds(t *testing.T) {
	processors(t, 2)
	before := runtime.NumGoroutine()
	l := &listing{flows: partly(5000, Assured), status: true, sent: make(map[Filter]int)}
	cause := errors.New("the operator's reason")
	for name, tt := range map[string]struct {
		half nfnltest.Handler
		do   func(n int, c *Conn, cancel context.CancelCauseFunc) bool // for the n-th flow; false breaks off
		is   error
	}{
		"refused":            {refuse(syscall.EINTR), nil, syscall.EINTR},
		"malformed":          {func(r nfnltest.Request) [][]byte { return [][]byte{nfnltest.Message(0x100, 0, r.Seq, nil)} }, nil, errShort},
		"broken off at once": {l.handle, func(int, *Conn, context.CancelCauseFunc) bool { return false }, nil},
		"broken off":         {silent, func(n int, _ *Conn, _ context.CancelCauseFunc) bool { return n < 1500 }, nil},
		"cancelled":          {silent, cancelAt(1500, cause), cause},
		"cancelled at once":  {silent, cancelAt(1, cause), cause},
		"closed":             {silent, closeAt(1500), net.ErrClosed},
	} {
		c, _ := fake(t, broken(l, tt.half))
		ctx, cancel := context.WithCancelCause(t.Context())
		n := 0
		_, err := collected(t, func(yield func(Flow, error) bool) {
			c.Parallel(ctx, nil)(func(f Flow, err error) bool {
				more := yield(f, err)
				if n++; err == nil && tt.do != nil {
					more = tt.do(n, c, cancel)
				}
				return more
			})
		})
		cancel(nil)
		if !errors.Is(err, tt.is) || err != nil && !isOp(err, "dump") {
			t.Errorf("%s: %v after %d flows", name, err, n)
		}
		_ = c.Close() // which one of them did
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func cancelAt(at int, cause error) func(int, *Conn, context.CancelCauseFunc) bool {
	return func(n int, _ *Conn, cancel context.CancelCauseFunc) bool {
		if n == at {
			cancel(cause)
		}
		return true
	}
}

func closeAt(at int) func(int, *Conn, context.CancelCauseFunc) bool {
	return func(n int, c *Conn, _ context.CancelCauseFunc) bool {
		if n == at {
			_ = c.Close()
		}
		return true
	}
}

// TestParallelPanic lets a panic of the loop's body out.
func TestParallelPanic(t *testing.T) {
	processors(t, 2)
	l := &listing{flows: partly(5000, Assured), status: true, sent: make(map[Filter]int)}
	c, _ := fake(t, l.handle)
	defer func() {
		if v := recover(); v != "mine" {
			t.Errorf("recovered %v", v)
		}
		if got, err := collected(t, c.Parallel(t.Context(), nil)); len(got) != len(l.flows) || err != nil {
			t.Errorf("afterwards: %d flows, %v", len(got), err)
		}
	}()
	for range c.Parallel(t.Context(), nil) {
		panic("mine")
	}
}

// divisible is a table of n flows, of which two in five were not answered.
func divisible(t testing.TB, n int) (*Conn, *lab.Host) {
	t.Helper()
	c, h := emptyTable(t)
	must(t, h.SetSysctl("net.netfilter.nf_conntrack_acct", "1"), h.SetSysctl("net.netfilter.nf_conntrack_timestamp", "1"))
	list := flows(n)
	for i := range list {
		if i%5 < 2 {
			list[i].Status = 0
		}
	}
	fill(t, c, list)
	return c, h
}

// inHalves is Parallel of a table however small.
func inHalves(t testing.TB, c *Conn, filter *Filter) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) { c.divided(t.Context(), filter, yield) }
}

// TestParallelLive compares with All over a table that nothing changes.
func TestParallelLive(t *testing.T) {
	c, _ := divisible(t, 5*sampleSize)
	if halves, even := c.sample(t.Context(), nil).divide(); !even || halves[0].set == 0 {
		t.Errorf("halves %+v", halves)
	}
	want, err := collected(t, c.All(t.Context(), nil))
	must(t, err)
	for _, filter := range []*Filter{nil, {Proto: ProtoUDP}, {IPv6Only: true}, {StatusUnset: SeenReply}} {
		got, err := collected(t, inHalves(t, c, filter))
		must(t, err)
		matching := maps.Clone(want)
		maps.DeleteFunc(matching, func(f Flow, _ int) bool { return !filter.Match(&f) })
		if !maps.Equal(got, matching) {
			t.Errorf("%+v: %d flows, want %d", filter, len(got), len(matching))
		}
	}
}

// TestParallelInConstantMemory dumps a large table with as many allocations as
// a small one.
func TestParallelInConstantMemory(t *testing.T) {
	read := func(n int) float64 {
		c, _ := divisible(t, n)
		fewest := math.Inf(1)
		for range 3 {
			fewest = min(fewest, testing.AllocsPerRun(1, func() {
				for _, err := range inHalves(t, c, nil) {
					must(t, err)
				}
			}))
		}
		return fewest
	}
	// A socket more or less, and what goroutines take, is dozens.
	if small, large := read(2*sampleSize), read(10*sampleSize); large > small+sampleSize/5 {
		t.Errorf("%v allocations for %d flows, %v for %d", large, 10*sampleSize, small, 2*sampleSize)
	}
}
