package incidents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// stop is what must panics with. It becomes the error of the scenario.
type stop struct{ err error }

// must ends the scenario if err is not nil.
func must(err error) {
	if err != nil {
		panic(stop{err})
	}
}

// get returns v, and ends the scenario if err is not nil.
func get[T any](v T, err error) T {
	must(err)
	return v
}

// walls puts up a wall on each host, and begins to watch all of them.
func (st *stage) walls(walls map[*host]wall) {
	for h, w := range walls {
		must(h.raise(st.ctx, w))
		must(h.watch(st.ctx))
	}
}

// change puts up another wall.
func (st *stage) change(h *host, why string, w wall) {
	st.tell(Set, "%s: %s", h.Name(), why)
	must(h.raise(st.ctx, w))
}

// served makes a listener on the server and a connection to it.
func (st *stage) served(port uint16) (net.Listener, *link) {
	l := get(st.listen(port))
	return l, get(st.connect(l, 0))
}

// dial tries to connect, and returns the tuple of the packets that it sends.
func (st *stage) dial(from, to *host, port uint16) (net.Conn, conntrack.Tuple, error) {
	ctx, cancel := context.WithTimeout(st.ctx, dialTime)
	defer cancel()
	t := st.tuple(from, to, port)
	c, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, port), nil)
	if err == nil {
		st.closers = append(st.closers, c)
	}
	return c, t, err
}

// dialTime is long enough for a few SYNs.
const dialTime = 5 * time.Second

// sourcePort is a port that nobody has used.
func (st *stage) sourcePort() uint16 {
	st.ports++
	return 20000 + st.ports
}

// expected is the verdict that a scenario is about.
type expected struct {
	state      reject.State // of the refused packet
	cause      reject.Cause
	confidence detect.Confidence
	// surer, if not nil, tells of evidence that makes it one step surer.
	surer func(*reject.Evidence) bool
	words []string // of summary, facts and fixes
}

// What can make a verdict surer: the rules were read, and the rule that refused
// is known.
func rulesRead(e *reject.Evidence) bool { return e.Rules.Result == reject.Present }
func ruleKnown(e *reject.Evidence) bool { return e.Rule.Result == reject.Present }

// explained waits for the host's verdict on a flow, and tells the refused packet
// as what was detected and the verdict as its explanation.
func (st *stage) explained(h *host, flow conntrack.Tuple, want expected) reject.Verdict {
	v := st.judged(h, func(v *reject.Verdict) bool { return v.Flow == flow }, want.cause)
	e := v.Evidence
	st.result(Detect, nil, fmt.Sprintf("%s: refused %v, conntrack state %v", h.Name(), e.Packet.Value, e.State),
		check{fmt.Sprintf("conntrack state %v", want.state), e.State == want.state})
	st.explain(v, want)
	return v
}

func (st *stage) explain(v reject.Verdict, want expected, more ...check) {
	all := fmt.Sprint(v.Summary, v.Facts, v.Fix)
	if want.surer != nil && want.surer(&v.Evidence) {
		want.confidence++
	}
	checks := append(more,
		check{fmt.Sprintf("cause %s (got %s)", want.cause, v.Cause), v.Cause == want.cause},
		check{fmt.Sprintf("confidence %v (got %v)", want.confidence, v.Confidence), v.Confidence == want.confidence})
	for _, w := range want.words {
		checks = append(checks, check{fmt.Sprintf("%q in the verdict", w), names(all, w)})
	}
	st.result(Explain, &v, v.Summary, checks...)
}

// secondThoughts is how long a verdict of another cause may be changed.
const secondThoughts = 2 * time.Second

// judged waits for a verdict, and a little longer for one of the wanted cause.
func (st *stage) judged(h *host, about func(*reject.Verdict) bool, cause reject.Cause) (v reject.Verdict) {
	var first time.Time
	must(st.wait(fmt.Sprintf("the %s's verdict", h.Name()), func() (ok bool, err error) {
		v, ok, err = h.latest(about)
		if ok && first.IsZero() {
			first = time.Now()
		}
		return ok && (v.Cause == cause || time.Since(first) > secondThoughts), err
	}))
	return v
}

// passes has a packet sent that was refused before, and reports that the host
// lets it in now.
func (st *stage) passes(h *host, send func()) check {
	in, out, err := h.counted(st.ctx)
	must(err)
	send()
	var now, refused uint64
	err = st.wait(fmt.Sprintf("the %s's firewall to count", h.Name()), func() (bool, error) {
		now, refused, err = h.counted(st.ctx)
		return now > in || refused > out, err
	})
	return check{"the same packet let in", err == nil && refused == out}
}

// talks reports that both ends of a connection hear each other.
func (st *stage) talks(k *link) check {
	err := errors.Join(send(k.client, k.server, "still there?\n"), send(k.server, k.client, "yes\n"))
	return check{fmt.Sprintf("the connection goes on (%v)", err), err == nil}
}

// forge sends a segment of a live connection to the server in the client's name,
// ahead bytes after the next that the client would send.
func (st *stage) forge(k *link, ahead int32, s segment) segment {
	next, acked, err := lab.Sequences(k.client)
	must(err)
	s.Tuple, s.seq, s.ack = k.fromClient, next+uint32(ahead), acked
	st.inject(st.client, st.server, s)
	return s
}

func (st *stage) inject(from, to *host, s segment) {
	must(from.Inject(to.Host, s.bytes()))
}

// tuple is that of the packets of a new connection.
func (st *stage) tuple(from, to *host, port uint16) conntrack.Tuple {
	return conntrack.Tuple{Src: from.addr, Dst: to.addr, SrcPort: st.sourcePort(), DstPort: port, Proto: conntrack.ProtoTCP}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// hears reports that the text arrives.
func (st *stage) hears(c net.Conn, text string) bool {
	must(c.SetReadDeadline(time.Now().Add(patience)))
	got := make([]byte, len(text))
	_, err := io.ReadFull(c, got)
	return err == nil && string(got) == text
}
