package incidents

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const innerPort = 8080

// published is the router's address, at which the server's service is published
// by destination NAT, and the chain that does it.
func (st *stage) published() (netip.AddrPort, nft.Chain) {
	address, six := st.router.Addrs(st.client.Host)
	if st.ipv6 {
		address = six
	}
	return netip.AddrPortFrom(address, httpsPort), nft.Chain{
		Name: "dnat", Type: nft.NAT, Hook: nft.Prerouting, Priority: nft.PriorityDstNAT,
		Rules: []nft.Rule{{Proto: nft.TCP, Dst: single(address), DstPort: httpsPort, Verdict: nft.DNAT,
			To: netip.AddrPortFrom(st.server.addr, innerPort)}},
	}
}

// throughNAT connects the client to the published address.
func (st *stage) throughNAT(l net.Listener, to netip.AddrPort) *link {
	c := get(st.client.Dial(st.ctx, "tcp", netip.AddrPort{}, to, nil))
	s := get(l.Accept())
	st.closers = append(st.closers, c, s)
	must(send(c, s, "request\n"))
	peer := s.RemoteAddr().(*net.TCPAddr).AddrPort()
	k := &link{client: c, server: s, fromServer: conntrack.Tuple{
		Src: st.server.addr, Dst: peer.Addr().Unmap(), SrcPort: innerPort, DstPort: peer.Port(), Proto: conntrack.ProtoTCP,
	}}
	k.fromClient = k.fromServer.Invert() // as the server sees them
	return k
}

// stray has a segment far ahead of the connection come from the server.
func (st *stage) stray(k *link) {
	next, acked, err := lab.Sequences(k.server)
	must(err)
	st.inject(st.server, st.router, segment{Tuple: k.fromServer, seq: next + 1<<29, ack: acked,
		flags: packet.PSH | packet.ACK, data: "far ahead\n"})
}

// playNotTranslated is C24: a gateway lets an INVALID packet through without
// undoing its translation, and the client resets what it does not know.
func playNotTranslated(st *stage) error {
	st.addRouter()
	to, dnat := st.published()
	lets := append(opens(innerPort), nft.Rule{CTState: nft.Invalid, Log: logAs("invalid "), Verdict: nft.Accept})
	st.tell(Set, "router: publishes the server's port %d as %v, and forwards what is INVALID too", innerPort, to)
	st.walls(map[*host]wall{st.router: {hook: nft.Forward, allow: lets, extra: []nft.Chain{dnat}}})
	l := get(st.listen(innerPort))
	k := st.throughNAT(l, to)
	st.stray(k)
	must(k.server.SetReadDeadline(time.Now().Add(patience)))
	_, err := k.server.Read(make([]byte, 1))
	st.result(Reproduce, nil, fmt.Sprintf("the connection breaks on the server: %v", err),
		check{"a RST", errors.Is(err, syscall.ECONNRESET)})
	want := expected{state: reject.Invalid, cause: reject.CauseNotTranslated, confidence: detect.Certain, words: []string{to.Addr().String()}}
	// The RST is of no connection for the tracker, which Linux before 6.7 does not say.
	v := st.judged(st.router, func(v *reject.Verdict) bool { return v.Flow == k.fromClient }, want.cause)
	if v.Evidence.Reason == "" {
		want.confidence = detect.Possible
	}
	st.explained(st.router, k.fromClient, want)
	st.change(st.router, "drops what is INVALID", wall{hook: nft.Forward, first: dropInvalid(), allow: opens(innerPort), extra: []nft.Chain{dnat}})
	k = st.throughNAT(l, to)
	st.result(Remedy, nil, "with INVALID packets dropped the same segment harms nothing",
		st.passes(st.router, func() { st.stray(k) }), st.talks(k))
	return nil
}

// playGateway is C19 on a gateway: the packet that it refuses is translated
// already, and the client knows it by another address.
func playGateway(st *stage) error {
	st.addRouter()
	to, dnat := st.published()
	st.tell(Set, "router: publishes the server's port %d as %v, and forwards nothing new", innerPort, to)
	st.walls(map[*host]wall{st.client: {}, st.router: {hook: nft.Forward, extra: []nft.Chain{dnat}}})
	l := get(st.listen(innerPort))
	local := netip.AddrPortFrom(st.client.addr, st.sourcePort())
	_, err := st.client.Dial(st.ctx, "tcp", local, to, nil)
	st.result(Reproduce, nil, fmt.Sprintf("the client cannot connect to %v: %v", to, err), check{"a prohibition", prohibited(err)})
	inner := conntrack.Tuple{Src: local.Addr(), Dst: st.server.addr, SrcPort: local.Port(), DstPort: innerPort, Proto: conntrack.ProtoTCP}
	st.explained(st.router, inner, expected{
		state: reject.New, cause: reject.CauseNotAllowed, confidence: detect.Likely, surer: ruleKnown, words: []string{fmt.Sprint(innerPort)},
	})
	st.change(st.router, fmt.Sprintf("forwards new connections to port %d, the translated one", innerPort),
		wall{hook: nft.Forward, allow: opens(innerPort), extra: []nft.Chain{dnat}})
	k := st.throughNAT(l, to)
	_, err = io.WriteString(k.server, "answer\n")
	st.result(Remedy, nil, "with the translated port allowed the client connects to the published one",
		check{fmt.Sprintf("an answer (%v)", err), err == nil && st.hears(k.client, "answer\n")})
	return nil
}
