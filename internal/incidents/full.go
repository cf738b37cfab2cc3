package incidents

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// fillable is how many entries a scenario makes at most: 100 bytes of request
// and 256 of kernel memory each.
const fillable = 1 << 19

// fill puts connections of one source into the host's table until it is
// full. They are ESTABLISHED: from those that are closing the kernel's garbage
// collector makes room by itself, sooner or later.
func (st *stage) fill(h *host) {
	u := get(h.ct.Usage(st.ctx))
	if u.Max == 0 || u.Max > fillable {
		must(fmt.Errorf("%w: nf_conntrack_max is %d, and at most %d entries are made", errors.ErrUnsupported, u.Max, fillable))
	}
	n := u.Max - min(u.Count, u.Max)
	st.tell(Seen, "%s: %d connections from one source", h.Name(), n)
	const workers = 2
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range uint64(workers) {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = h.ct.Create(st.ctx, flood(h.addr, i))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		must(err)
	}
}

// flood is the entry of the i-th connection of the flood.
func flood(to netip.Addr, i uint64) conntrack.Flow {
	t := conntrack.Tuple{Src: floodFrom(to).Addr(), Dst: to, SrcPort: uint16(i), DstPort: uint16(httpsPort + i>>16), Proto: conntrack.ProtoTCP}
	return conntrack.Flow{
		Original: t, Reply: t.Invert(), Timeout: time.Hour, Status: conntrack.SeenReply | conntrack.Assured,
		Fields: conntrack.FieldStatus | conntrack.FieldTimeout | conntrack.FieldTCP, TCP: conntrack.TCPInfo{State: conntrack.TCPEstablished},
	}
}

// floodFrom is where the flood comes from: nobody's address.
func floodFrom(to netip.Addr) netip.Prefix {
	b := to.AsSlice()
	b[len(b)-1] = 99
	from, _ := netip.AddrFromSlice(b)
	return single(from)
}

const (
	dns       = 53
	questions = 500
)

// playTableFull is S1 and C03: a full table has no room for new connections,
// and evicts the entries of questions that were not answered yet.
func playTableFull(st *stage) error {
	drop := []nft.Rule{{Proto: nft.UDP, Verdict: nft.Drop}}
	st.walls(map[*host]wall{st.client: {first: drop}, st.server: {allow: opens(httpsPort)}})
	st.answering(httpsPort)
	was := st.tally(st.server)
	st.fill(st.server)
	err := st.silent(httpsPort)
	e := st.since(st.server, was)
	st.tell(Seen, "the server's table: %v", e.Usage.Value)
	st.result(Reproduce, nil, fmt.Sprintf("a client gets no word from the server, not even a refusal: %v", err),
		check{"silence", errors.Is(err, errSilence)})
	st.detectFull(e, was)
	evicted := st.evicted()
	all := expected{cause: reject.CauseTableFull, confidence: detect.Certain, words: []string{"nf_conntrack_max"}}
	st.explain(reject.Explain(e), all, evicted)
	_, err = st.server.ct.DeleteMatching(st.ctx, &conntrack.Filter{Src: single(st.server.addr)}, nil) // its questions
	must(err)
	st.fill(st.server)
	report, err := st.server.ct.DeleteMatching(st.ctx, &conntrack.Filter{Src: floodFrom(st.server.addr)}, &conntrack.DeleteOptions{Limit: 1 << 14})
	must(err)
	st.result(Remedy, nil, fmt.Sprintf("with %d entries of the one source deleted a new connection is answered", report.Deleted),
		st.answered(httpsPort))
	return nil
}

// detectFull finds the full table, and what fills it.
func (st *stage) detectFull(e reject.Evidence, was tally) {
	seen := get(st.server.look(st.ctx))
	seen.Earlier = was.earlier
	found := detect.Find(seen, detect.Pressure{})
	causes := fmt.Sprint(found)
	st.result(Detect, nil, "Pressure: "+causes,
		check{"a full table", e.Usage.Value.Count >= e.Usage.Value.Max && len(found) > 0},
		check{"what fills it", names(causes, "ESTABLISHED 100 %")},
		check{"packets dropped", e.Counters.Value.Conntrack.Drop > 0})
}

// evicted has the server ask some questions, for whose entries there is just
// room, and more, which take the room of some of the first. The answer to one of
// these is refused.
func (st *stage) evicted() check {
	st.makeRoom(0)
	c := get(st.server.ListenPacket("udp", netip.AddrPortFrom(st.server.addr, 0)))
	st.closers = append(st.closers, c)
	q := asker{c, conntrack.Tuple{Src: st.server.addr, Dst: st.client.addr, Proto: conntrack.ProtoUDP,
		SrcPort: c.LocalAddr().(*net.UDPAddr).AddrPort().Port()}}
	if failed, err := q.ask(firstPort, questions); failed > 0 {
		must(err)
	}
	failed, err := q.ask(firstPort+questions, 8*questions)
	st.tell(Seen, "the server asks %d questions, which fill the table, and %d more, of which %d fail: %v",
		questions, 8*questions, failed, err)
	st.makeRoom(questions)
	for q.DstPort = firstPort; q.DstPort < firstPort+questions; q.DstPort++ {
		if _, ok, err := st.entry(st.server, q.Tuple); !ok {
			must(err)
			return st.answerEvicted(q.Tuple)
		}
	}
	return check{"an evicted entry", false}
}

// firstPort is the first that is asked a question.
const firstPort = 1000

// asker asks questions from one socket.
type asker struct {
	net.PacketConn
	conntrack.Tuple // of a question
}

// ask asks n ports, and returns how many packets could not be sent and why.
func (q asker) ask(port uint16, n int) (failed int, why error) {
	for i := range n {
		to := netip.AddrPortFrom(q.Dst, port+uint16(i))
		if _, err := q.WriteTo([]byte("question"), net.UDPAddrFromAddrPort(to)); err != nil {
			failed, why = failed+1, err
		}
	}
	return failed, why
}

// makeRoom deletes entries of the flood, from the n-th on: a packet that needs an
// entry in a full table is dropped before any rule can refuse it.
func (st *stage) makeRoom(n uint64) {
	var some []conntrack.Flow
	for i := range uint64(questions) {
		some = append(some, get(st.server.ct.Get(st.ctx, flood(st.server.addr, n+i).Original, 0)))
	}
	_, err := st.server.ct.DeleteAll(st.ctx, slices.Values(some), nil)
	must(err)
}

func (st *stage) answerEvicted(asked conntrack.Tuple) check {
	c := get(st.client.ListenPacket("udp", netip.AddrPortFrom(asked.Dst, asked.DstPort)))
	st.closers = append(st.closers, c)
	_, err := c.WriteTo([]byte("answer"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(asked.Src, asked.SrcPort)))
	must(err)
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == asked.Invert() }, reject.CauseEntryEvicted)
	st.tell(Seen, "an answer is refused: %v", v)
	return check{fmt.Sprintf("an answer refused for its entry was evicted (%s)", v.Cause), v.Cause == reject.CauseEntryEvicted}
}
