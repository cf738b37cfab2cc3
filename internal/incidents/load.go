package incidents

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// A crowd of connections stands for the hundreds of the incidents.
const (
	crowd  = 30
	normal = 20
)

// load is what one source holds on the server in a state.
func (st *stage) load(source netip.Prefix, state sockdiag.State) reject.Load {
	l := reject.Load{Source: source, State: state, Limit: normal, Idle: true}
	for s, err := range st.server.diag.All(st.ctx, sockdiag.Query{States: sockdiag.States(state), Info: true}) {
		must(err)
		if source.Contains(s.Remote.Addr().Unmap()) {
			l.Count++
			l.Idle = l.Idle && s.Info.Has(sockdiag.InfoBytes) && s.Info.BytesReceived == 0
		}
	}
	return l
}

// crowded waits until the source holds so many.
func (st *stage) crowded(source netip.Prefix, state sockdiag.State, n uint64) (l reject.Load) {
	must(st.wait(fmt.Sprintf("%d sockets of %v in %v", n, source, state), func() (bool, error) {
		l = st.load(source, state)
		return l.Count == n, nil
	}))
	return l
}

// bans puts up a wall that drops whatever the source sends.
func bans(source netip.Prefix, ports ...uint16) wall {
	return wall{first: []nft.Rule{{Src: source, Counter: true, Comment: refused, Verdict: nft.Drop}}, allow: opens(ports...)}
}

func (st *stage) foundLoad(d detect.Detector) {
	var found []detect.Finding
	must(st.wait("all of them to show", func() (bool, error) {
		seen, err := st.server.look(st.ctx)
		found = detect.Find(seen, d)
		return len(found) == 1 && found[0].Count >= crowd, err
	}))
	st.result(Detect, nil, fmt.Sprintf("%s: %s", d.Name(), told(found[0])))
}

// playIdleFlood is L1: one source holds connections that carry nothing.
func playIdleFlood(st *stage) error {
	must(st.open(sipPort))
	l := get(st.listen(sipPort))
	source := single(st.client.addr)
	var held []func() error
	for range crowd {
		_, _, err := st.dial(st.client, st.server, sipPort)
		must(err)
		c := get(l.Accept())
		held = append(held, c.Close)
	}
	idle := st.crowded(source, sockdiag.Established, crowd)
	st.result(Reproduce, nil, fmt.Sprintf("%v holds %d connections that carry nothing, each with a descriptor of the server's process", source, idle.Count),
		check{"idle", idle.Idle})
	st.foundLoad(detect.IdleFlood{Limit: normal, Silence: time.Nanosecond})
	st.explain(reject.Explain(reject.Evidence{Load: reject.Found(idle)}), expected{
		cause: reject.CauseIdleFlood, confidence: detect.Likely, words: []string{"carry nothing", "ct count over"},
	})
	st.change(st.server, "bans the source, and its application closes what is idle", bans(source, sipPort))
	for _, closes := range held {
		must(closes())
	}
	left := st.crowded(source, sockdiag.Established, 0)
	err := st.silent(sipPort)
	st.result(Remedy, nil, fmt.Sprintf("the source holds %d connections, and makes no new one: %v", left.Count, err), check{"silence", errors.Is(err, errSilence)})
	return nil
}

const sipPort = 5060

// playSynFlood is L2 in SYN_RECV: somebody begins connections under an address
// that does not answer.
func playSynFlood(st *stage) error {
	must(st.open(httpsPort))
	st.answering(httpsPort)
	source := floodFrom(st.server.addr)
	begin := func(port uint16) {
		for i := range uint16(crowd) {
			st.inject(st.client, st.server, segment{flags: packet.SYN, Tuple: conntrack.Tuple{
				Src: source.Addr(), Dst: st.server.addr, SrcPort: port + i, DstPort: httpsPort, Proto: conntrack.ProtoTCP,
			}})
		}
	}
	// They last long enough to be counted, and those that get lost come again.
	must(st.set(st.server, "net.ipv4.tcp_synack_retries", "10"))
	must(st.wait("connections half made", func() (bool, error) {
		begin(1000)
		return st.load(source, sockdiag.SynRecv).Count >= crowd, nil
	}))
	pile := st.crowded(source, sockdiag.SynRecv, crowd)
	st.result(Reproduce, nil, fmt.Sprintf("%d connections begun in the name of %v wait for an answer to the server's SYN|ACK", pile.Count, source))
	st.foundLoad(detect.PerSource{State: sockdiag.SynRecv, Limit: normal})
	pile.Idle = false // which says nothing of a connection that is not made
	st.explain(reject.Explain(reject.Evidence{Load: reject.Found(pile)}), expected{
		cause: reject.CauseStatePile, confidence: detect.Likely, words: []string{"SYN flood", "tcp_syncookies"},
	})
	st.change(st.server, "bans the source", bans(source, httpsPort))
	_, was, err := st.server.counted(st.ctx)
	must(err)
	begin(2000)
	var dropped uint64
	must(st.wait("the server's firewall to drop them", func() (bool, error) {
		_, now, err := st.server.counted(st.ctx)
		dropped = now - was
		return dropped >= crowd, err
	}))
	now := st.load(source, sockdiag.SynRecv)
	st.result(Remedy, nil, fmt.Sprintf("%d more are dropped, and others are answered", dropped),
		check{fmt.Sprintf("no more than before (%d)", now.Count), now.Count <= crowd}, st.answered(httpsPort))
	return nil
}
