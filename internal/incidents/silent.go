package incidents

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// counted is the host's verdict on what only counters tell.
func (st *stage) counted(h *host, cause reject.Cause) reject.Verdict {
	return st.judged(h, func(v *reject.Verdict) bool { return v.Evidence.Refusal == reject.Counted && v.Cause == cause }, cause)
}

// explainCounts is the explanation of what only counters tell.
func (st *stage) explainCounts(v reject.Verdict, want expected) {
	c := v.Evidence.Counters.Value
	st.result(Detect, nil, fmt.Sprintf("in %v: %d packets refused, %d ICMP errors sent, %d not sent for their rate; %d entries dropped early, "+
		"%d packets dropped, %d entries not inserted, %d packets dropped by the reverse path filter", c.Window.Round(time.Millisecond), c.Refused, c.Errors, c.RateLimited,
		c.Conntrack.EarlyDrop, c.Conntrack.Drop, c.Conntrack.InsertFailed, c.ReversePath),
		check{"a counter that moved", c.RateLimited+c.Conntrack.Drop+c.Conntrack.InsertFailed+c.ReversePath > 0 || c.Errors < c.Refused})
	st.explain(v, want)
}

// playRateLimited is C27: most of what is refused is refused in silence.
func playRateLimited(st *stage) error {
	limit := "net.ipv4.icmp_ratelimit"
	if st.ipv6 {
		limit = "net.ipv6.icmp.ratelimit"
	}
	must(st.set(st.server, limit, "60000")) // not 1000: a slow machine needs seconds for the scan
	must(st.open(httpsPort))
	e := st.scan()
	c := e.Counters.Value
	st.result(Reproduce, nil, fmt.Sprintf("a client asks for %d ports, and learns that %d are refused", c.Refused, c.Errors),
		check{"silence for most", c.Errors < c.Refused/2})
	want := expected{cause: reject.CauseRateLimited, confidence: detect.Certain, words: []string{limit}}
	if _, counted := st.server.snmp(st.icmp(), "OutRateLimitHost"); !counted { // before Linux 6.3
		want.confidence = detect.Likely
	}
	st.explainCounts(st.counted(st.server, want.cause), want)
	must(st.set(st.server, limit, "0"))
	c = st.scan().Counters.Value
	st.result(Remedy, nil, fmt.Sprintf("with %s = 0 the client learns of %d refusals of %d", limit, c.Errors, c.Refused),
		check{"an error for each", c.Errors >= c.Refused})
	return nil
}

// scan has the client ask for many ports, and returns what the server counts.
func (st *stage) scan() reject.Evidence {
	const ports = 60
	was := st.tally(st.server)
	for i := range uint16(ports) {
		st.inject(st.client, st.server, segment{Tuple: st.tuple(st.client, st.server, 2000+i), flags: packet.SYN})
	}
	must(st.wait("the server's firewall to refuse", func() (bool, error) {
		_, now, err := st.server.counted(st.ctx)
		return now-was.counts.Refused >= ports, err
	}))
	return st.since(st.server, was)
}

// playNATClash is S2: source NAT has one port, and two connections want it.
func playNATClash(st *stage) error {
	st.addRouter()
	address, six := st.router.Addrs(st.server.Host)
	if st.ipv6 {
		address = six
	}
	snat := func(port uint16) []nft.Chain {
		return []nft.Chain{{Name: "snat", Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT, Rules: []nft.Rule{
			{Proto: nft.TCP, OutIface: "server", Verdict: nft.SNAT, To: netip.AddrPortFrom(address, port)},
		}}}
	}
	st.tell(Set, "router: translates the source of all connections to %v, one port", netip.AddrPortFrom(address, 40000))
	st.walls(map[*host]wall{st.client: {}, st.router: {hook: nft.Forward, allow: opens(httpsPort), extra: snat(40000)}})
	st.answering(httpsPort)
	first := st.answered(httpsPort)
	err := st.silent(httpsPort)
	st.result(Reproduce, nil, fmt.Sprintf("one connection is answered, and the next gets no word, not even a refusal: %v", err),
		first, check{"silence", errors.Is(err, errSilence)})
	st.explainCounts(st.counted(st.router, reject.CauseInsertFailed), expected{
		cause: reject.CauseInsertFailed, confidence: detect.Certain, words: []string{"insert_failed", "port"},
	})
	st.change(st.router, "translates to any port", wall{hook: nft.Forward, allow: opens(httpsPort), extra: snat(0)})
	st.result(Remedy, nil, "with more ports to translate to the next connection is answered", st.answered(httpsPort))
	return nil
}

var errSilence = errors.New("no answer")

// silent connects and is not answered, for as long as two SYNs take: errSilence.
func (st *stage) silent(port uint16) error {
	ctx, cancel := context.WithTimeout(st.ctx, 1500*time.Millisecond)
	defer cancel()
	t := st.tuple(st.client, st.server, port)
	c, err := st.client.Dial(ctx, "tcp", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort), nil)
	if err == nil {
		err = errors.Join(errors.New("it connects"), c.Close())
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && st.ctx.Err() == nil {
		return errSilence
	}
	return err
}
