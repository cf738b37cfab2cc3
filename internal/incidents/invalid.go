package incidents

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const httpsPort = 443

// dropInvalid is the advice of the iptables manual: what is INVALID is not
// answered.
func dropInvalid() []nft.Rule {
	return []nft.Rule{{CTState: nft.Invalid, Counter: true, Comment: passed, Verdict: nft.Drop}}
}

// playOutOfWindow is C09: a segment far ahead of what the tracker has seen.
func playOutOfWindow(st *stage) error {
	must(st.open(httpsPort))
	_, k := st.served(httpsPort)
	s := st.forge(k, 1<<29, segment{flags: packet.PSH | packet.ACK, data: "far ahead\n"})
	v := st.explainedAfter(st.server, k, fmt.Sprintf("a segment 512 MiB ahead is refused: SEQ %d", s.seq), expected{
		state: reject.Invalid, cause: reject.CauseOutOfWindow, confidence: detect.Certain,
		words: []string{"over upper bound", "nf_conntrack_tcp_be_liberal"},
	})
	must(st.set(st.server, "net.netfilter.nf_conntrack_tcp_be_liberal", "1"))
	st.result(Remedy, nil, "with nf_conntrack_tcp_be_liberal = 1 the tracker lets it in, and TCP itself discards it",
		st.passes(st.server, func() { st.inject(st.client, st.server, s) }), st.talks(k),
		check{"the packet of the verdict", v.Evidence.Packet.Value.Seq == s.seq})
	return nil
}

// explainedAfter tells of a forged packet that was refused without harm to its
// connection, and of the verdict.
func (st *stage) explainedAfter(h *host, k *link, what string, want expected) reject.Verdict {
	v := st.judged(h, func(v *reject.Verdict) bool { return v.Flow == k.fromClient }, want.cause)
	st.result(Reproduce, nil, what, st.talks(k), check{"the refusal", v.Evidence.Refusal == reject.Logged})
	return st.explained(h, k.fromClient, want)
}

// playInvalidReset is C11: a RST that is older than what was acknowledged.
func playInvalidReset(st *stage) error {
	must(st.open(httpsPort))
	_, k := st.served(httpsPort)
	must(send(k.server, k.client, "answer\n"))
	st.forge(k, -5, segment{flags: packet.RST | packet.ACK})
	st.explainedAfter(st.server, k, "a RST with a SEQ that was acknowledged long ago is refused", expected{
		state: reject.Invalid, cause: reject.CauseInvalidReset, confidence: detect.Certain, words: []string{"invalid rst"},
	})
	st.change(st.server, "drops what is INVALID instead of answering it", wall{first: dropInvalid(), allow: opens(httpsPort)})
	st.result(Remedy, nil, "the RST is dropped, nobody is answered, and the connection goes on",
		st.passes(st.server, func() { st.forge(k, -5, segment{flags: packet.RST | packet.ACK}) }), st.talks(k))
	return nil
}

// playInvalidFlags is C12: a segment with flags that no honest stack sends.
func playInvalidFlags(st *stage) error {
	must(st.open(httpsPort))
	s := segment{Tuple: st.tuple(st.client, st.server, httpsPort), flags: packet.SYN | packet.FIN}
	st.inject(st.client, st.server, s)
	want := expected{state: reject.Invalid, cause: reject.CauseInvalidFlags, confidence: detect.Certain, words: []string{"flag"}}
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == s.Tuple }, want.cause)
	st.result(Reproduce, nil, "SYN and FIN in one segment are refused, and answered: the scanner learns that a host is there",
		check{"an ICMP error", v.Evidence.ICMP.Result == reject.Present})
	st.explained(st.server, s.Tuple, want)
	st.change(st.server, "bans the source", wall{
		first: []nft.Rule{{Src: single(st.client.addr), Counter: true, Comment: passed, Verdict: nft.Drop}},
	})
	st.result(Remedy, nil, "the source is banned: the same packet is dropped without an answer",
		st.passes(st.server, func() { st.inject(st.client, st.server, s) }))
	return nil
}

// playDamaged is C13: a SYN whose checksum is wrong.
func playDamaged(st *stage) error {
	must(st.open(httpsPort))
	s := segment{Tuple: st.tuple(st.client, st.server, httpsPort), flags: packet.SYN, damaged: true}
	st.inject(st.client, st.server, s)
	want := expected{state: reject.Invalid, cause: reject.CauseDamaged, confidence: detect.Certain, words: []string{"bad checksum"}}
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == s.Tuple }, want.cause)
	st.result(Reproduce, nil, "a SYN with a wrong checksum is refused, and no ICMP error tells of it",
		check{"silence", v.Evidence.ICMP.Result != reject.Present})
	st.explained(st.server, s.Tuple, want)
	must(st.set(st.server, "net.netfilter.nf_conntrack_checksum", "0"))
	st.result(Remedy, nil, "with nf_conntrack_checksum = 0 the tracker does not look at it; with a right checksum it needs no such stopgap",
		st.passes(st.server, func() { st.inject(st.client, st.server, s) }))
	return nil
}
