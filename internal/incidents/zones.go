package incidents

import (
	"fmt"
	"io"
	"net"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// raw is a chain that is asked before connections are looked up.
func raw(hook nft.Hook, rules ...nft.Rule) nft.Chain {
	return nft.Chain{Name: "raw-" + hook.String(), Hook: hook, Priority: nft.PriorityRaw, Rules: rules}
}

// halfSeen is what the three causes of a half-tracked connection have in
// common: the SYN/ACK gets through, and all that the client sends then is
// refused. The ICMP error about its first ACK is a soft error, which programs
// that connect without blocking take for a failure (SO_ERROR). It returns the
// tuple of the client's packets.
func (st *stage) halfSeen(h *host, port uint16, why string) conntrack.Tuple {
	st.answering(port)
	c, flow, err := st.dial(st.client, st.server, port)
	if err == nil {
		_, werr := io.WriteString(c, "request\n")
		must(werr)
	}
	f, tracked := st.halfEntry(h, flow)
	st.tell(Seen, "%s: %v", h.Name(), f)
	st.result(Reproduce, nil, fmt.Sprintf("the SYN is answered, and what the client sends then is refused: %s; connect: %v", why, err),
		check{"a connection, or the refusal", err == nil || prohibited(err)},
		check{"an entry that saw no answer", tracked && f.TCP.State == conntrack.TCPSynSent && f.Unreplied()})
	return flow
}

// halfEntry finds the entry in whatever zone.
func (st *stage) halfEntry(h *host, flow conntrack.Tuple) (conntrack.Flow, bool) {
	for f, err := range h.ct.All(st.ctx, nil) {
		must(err)
		if f.Original == flow {
			return f, true
		}
	}
	return conntrack.Flow{}, false
}

// answering has the server accept connections and answer to what it reads.
func (st *stage) answering(port uint16) {
	go serve(get(st.listen(port)))
}

// serve accepts connections until the listener is closed.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go echo(c)
	}
}

func echo(c net.Conn) {
	defer c.Close() //nolint:errcheck // nothing is lost by it
	_, _ = io.Copy(c, c)
}

// answered connects anew and hears an answer.
func (st *stage) answered(port uint16) check {
	c, _, err := st.dial(st.client, st.server, port)
	if err == nil {
		err = send(c, c, "hello\n")
	}
	return check{fmt.Sprintf("connect, request and answer (%v)", err), err == nil}
}

// playWrongZone is C14: what comes in is tracked in another zone than what goes
// out.
func playWrongZone(st *stage) error {
	in := raw(nft.Prerouting, nft.Rule{InIface: "client", Zone: 5})
	st.tell(Set, "server: packets from the client are in conntrack zone 5, those to the client in zone 0")
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort), extra: []nft.Chain{in}}})
	flow := st.halfSeen(st.server, httpsPort, "the SYN/ACK was looked up in another zone")
	st.explained(st.server, flow, expected{
		state: reject.Invalid, cause: reject.CauseWrongZone, confidence: detect.Certain, words: []string{"zone", "5"},
	})
	out := raw(nft.Output, nft.Rule{OutIface: "client", Zone: 5})
	st.change(st.server, "packets to the client are in zone 5 too", wall{allow: opens(httpsPort), extra: []nft.Chain{in, out}})
	st.result(Remedy, nil, "with one zone for both directions a new connection is answered", st.answered(httpsPort))
	return nil
}

// playUntrackedReturn is C15: the answers are exempt from tracking.
func playUntrackedReturn(st *stage) error {
	out := raw(nft.Output, nft.Rule{Proto: nft.TCP, SrcPort: httpsPort, Verdict: nft.NoTrack})
	st.tell(Set, "server: answers from port %d are not tracked", httpsPort)
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort), extra: []nft.Chain{out}}})
	flow := st.halfSeen(st.server, httpsPort, "its tracker never saw the SYN/ACK")
	st.explained(st.server, flow, expected{
		state: reject.Invalid, cause: reject.CauseUntrackedReturn, confidence: detect.Likely, surer: rulesRead, words: []string{"notrack"},
	})
	st.change(st.server, "tracks both directions", wall{allow: opens(httpsPort)})
	st.result(Remedy, nil, "with both directions tracked a new connection is answered", st.answered(httpsPort))
	return nil
}

// playUntracked is C23: neither direction is tracked, and the rules ask for the
// state.
func playUntracked(st *stage) error {
	off := []nft.Chain{
		raw(nft.Prerouting, nft.Rule{Proto: nft.TCP, DstPort: httpsPort, Verdict: nft.NoTrack}),
		raw(nft.Output, nft.Rule{Proto: nft.TCP, SrcPort: httpsPort, Verdict: nft.NoTrack}),
	}
	st.tell(Set, "server: port %d is not tracked, and its firewall accepts only what has a state", httpsPort)
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort), extra: off}})
	st.answering(httpsPort)
	flow := st.refusedConnect(httpsPort)
	st.explained(st.server, flow, expected{
		state: reject.Untracked, cause: reject.CauseUntracked, confidence: detect.Likely, surer: ruleKnown, words: []string{"notrack"},
	})
	accept := nft.Rule{CTState: nft.Untracked, Proto: nft.TCP, DstPort: httpsPort, Verdict: nft.Accept}
	st.change(st.server, "accepts untracked packets to the port", wall{allow: []nft.Rule{accept}, extra: off})
	st.result(Remedy, nil, "with a rule for what is untracked a new connection is answered", st.answered(httpsPort))
	return nil
}

// refusedConnect has the client connect in vain.
func (st *stage) refusedConnect(port uint16) conntrack.Tuple {
	_, flow, err := st.dial(st.client, st.server, port)
	st.result(Reproduce, nil, fmt.Sprintf("the service's port cannot be connected to: %v", err),
		check{"an administrative prohibition", prohibited(err)})
	return flow
}

// playAsymmetric is C16: the answers of a routed connection take another way.
func playAsymmetric(st *stage) error {
	st.addRouter()
	st.tell(Set, "server: answers the client past the router, by a link of their own")
	must(st.network.Route(st.server.Host, st.client.Host, st.behind(st.client)))
	st.walls(map[*host]wall{st.client: {}, st.router: {hook: nft.Forward, allow: opens(httpsPort)}})
	flow := st.halfSeen(st.router, httpsPort, "the router sees one direction only")
	st.explained(st.router, flow, expected{
		state: reject.Invalid, cause: reject.CauseAsymmetric, confidence: detect.Likely, surer: rulesRead, words: []string{"SYN_SENT"},
	})
	st.tell(Set, "server: answers the client by way of the router")
	must(st.network.Route(st.server.Host, st.router.Host, single(st.client.addr)))
	st.result(Remedy, nil, "with the same way for both directions a new connection is answered", st.answered(httpsPort))
	return nil
}

// playRuleOrder is C22: a rule that refuses stands before the one that accepts
// what belongs to a connection.
func playRuleOrder(st *stage) error {
	must(st.open(httpsPort))
	_, k := st.served(httpsPort)
	early := []nft.Rule{
		{Proto: nft.TCP, DstPort: httpsPort, CTState: nft.Established, Log: logAs("established ")},
		{Proto: nft.TCP, DstPort: httpsPort, Verdict: nft.RejectAdminProhibited},
	}
	st.change(st.server, fmt.Sprintf("somebody puts a reject of port %d first", httpsPort), wall{first: early, allow: opens(httpsPort)})
	_, err := io.WriteString(k.client, "hello\n")
	must(err)
	want := expected{
		state: reject.Established, cause: reject.CauseRuleOrder, confidence: detect.Likely, surer: ruleKnown, words: []string{"before"},
	}
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == k.fromClient }, want.cause)
	f, ok, err := st.entry(st.server, k.fromClient)
	must(err)
	st.result(Reproduce, nil, "a connection that was allowed hangs: its packets are refused although its entry is alive",
		check{"the entry ESTABLISHED", ok && f.TCP.State == conntrack.TCPEstablished},
		check{"an ICMP error", v.Evidence.ICMP.Result == reject.Present})
	st.explained(st.server, k.fromClient, want)
	st.change(st.server, "the reject comes after what belongs to a connection", wall{allow: early[1:]})
	st.result(Remedy, nil, "with the rules in order the connection goes on, and new ones are refused",
		check{"the retransmission", st.hears(k.server, "hello\n")}, st.talks(k))
	return nil
}
