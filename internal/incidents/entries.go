package incidents

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// playDeleted is C02: somebody deletes the entry of a live connection.
func playDeleted(st *stage) error {
	must(st.open(dbPort))
	_, k := st.served(dbPort)
	f, _, err := st.entry(st.client, k.fromClient)
	must(err)
	must(st.client.ct.Delete(st.ctx, f))
	st.tell(Seen, "somebody deletes the client's entry: %v", f)
	st.unheard(k, expected{
		state: reject.New, cause: reject.CauseEntryDeleted, confidence: detect.Certain, words: []string{"deleted"},
	})
	st.pickUp(k)
	return nil
}

// playTrackedLate is C04: the client's firewall begins to track when the
// connection is made already.
func playTrackedLate(st *stage) error {
	must(st.server.firewall(st.ctx, dbPort))
	_, k := st.served(dbPort)
	st.tell(Set, "client: its firewall starts, and with it the tracker; the connection is older")
	st.walls(map[*host]wall{st.client: {}})
	st.unheard(k, expected{state: reject.New, cause: reject.CauseTrackedLate, confidence: detect.Possible})
	st.pickUp(k)
	return nil
}

// unheard has the server answer, and the client's firewall refuse it.
func (st *stage) unheard(k *link, want expected) {
	_, err := io.WriteString(k.server, "answer\n")
	must(err)
	v := st.judged(st.client, func(v *reject.Verdict) bool { return v.Flow == k.fromServer }, want.cause)
	_, tracked, err := st.entry(st.client, k.fromClient)
	must(err)
	st.result(Reproduce, nil, "the server's answer is refused by the client's own firewall",
		check{"an ICMP error from the client", v.Evidence.ICMP.Value.Src == st.client.addr},
		check{"no entry", !tracked})
	st.explained(st.client, k.fromServer, want)
}

// pickUp is the remedy for a connection without an entry: whoever speaks from
// behind the firewall has it picked up again (tcp_loose).
func (st *stage) pickUp(k *link) {
	_, err := io.WriteString(k.client, "hello?\n")
	must(err)
	f, _, err := st.entry(st.client, k.fromClient)
	must(err)
	st.tell(Seen, "client sends something; its entry: %v", f)
	heard := st.hears(k.client, "answer\n")
	st.result(Remedy, nil, "with nf_conntrack_tcp_loose = 1 a packet from the client makes a new entry, and the answer arrives",
		check{"the answer", heard})
}

// playPortReuse is C06: the client uses the address and port that the server has
// an unfinished connection to.
func playPortReuse(st *stage) error {
	must(st.open(slowPort))
	must(st.client.firewall(st.ctx, clientPort))
	l := get(st.client.Listen("tcp", netip.AddrPortFrom(st.client.addr, clientPort)))
	st.closers = append(st.closers, l)
	back := get(st.server.Dial(st.ctx, "tcp", netip.AddrPortFrom(st.server.addr, slowPort), netip.AddrPortFrom(st.client.addr, clientPort), nil))
	st.closers = append(st.closers, get(l.Accept()))
	must(back.Close())
	s := segment{flags: packet.SYN, Tuple: conntrack.Tuple{Src: st.client.addr, Dst: st.server.addr,
		SrcPort: clientPort, DstPort: slowPort, Proto: conntrack.ProtoTCP}}
	var f conntrack.Flow
	must(st.wait("the server's entry to be half closed", func() (ok bool, err error) {
		f, ok, err = st.entry(st.server, s.Invert())
		return ok && f.TCP.State == conntrack.TCPCloseWait, err
	}))
	st.tell(Seen, "server has connected to port %d of the client, and has closed: %v", clientPort, f)
	st.inject(st.client, st.server, s)
	want := expected{
		state: reject.Invalid, cause: reject.CausePortReuse, confidence: detect.Certain, words: []string{"CLOSE_WAIT", "reply direction"},
	}
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == s.Tuple }, want.cause)
	st.result(Reproduce, nil, "the client, started anew, connects to the server from that port, and is refused",
		check{"an ICMP error", v.Evidence.ICMP.Result == reject.Present})
	st.explained(st.server, s.Tuple, want)
	must(st.server.ct.Delete(st.ctx, f))
	st.result(Remedy, nil, "with the entry deleted the same SYN is let in",
		st.passes(st.server, func() { st.inject(st.client, st.server, s) }))
	return nil
}

// playBackscatter is C18: somebody forges the server's address, and the answers
// come here.
func playBackscatter(st *stage) error {
	must(st.open(httpsPort))
	s := segment{Tuple: st.tuple(st.client, st.server, 50000), flags: packet.SYN | packet.ACK, seq: 1000, ack: 2000}
	s.SrcPort = httpsPort
	st.inject(st.client, st.server, s)
	want := expected{state: reject.Invalid, cause: reject.CauseBackscatter, confidence: detect.Likely, words: []string{"forge"}}
	v := st.judged(st.server, func(v *reject.Verdict) bool { return v.Flow == s.Tuple }, want.cause)
	st.result(Reproduce, nil, "the answer to a SYN that this host never sent is refused, which bothers an innocent host",
		check{"an ICMP error", v.Evidence.ICMP.Result == reject.Present})
	st.explained(st.server, s.Tuple, want)
	st.change(st.server, "drops what is INVALID instead of answering it", wall{first: dropInvalid(), allow: opens(httpsPort)})
	st.result(Remedy, nil, "the packet is dropped, and nobody is answered",
		st.passes(st.server, func() { st.inject(st.client, st.server, s) }))
	return nil
}

const synSent = ctTimeout + "syn_sent"

// playSynMissed is C17: the SYN/ACK comes when the entry of its SYN has expired.
func playSynMissed(st *stage) error {
	must(st.set(st.client, synSent, "1"))
	// Since Linux 6.5 a second passes between all of the first SYNs.
	if err := st.client.set("net.ipv4.tcp_syn_linear_timeouts", "0"); !errors.Is(err, fs.ErrNotExist) {
		must(err)
	}
	drop := wall{first: []nft.Rule{{Proto: nft.TCP, DstPort: httpsPort, Verdict: nft.Drop}}}
	st.tell(Set, "server: is slow to answer")
	st.walls(map[*host]wall{st.client: {}, st.server: drop})
	t := st.tuple(st.client, st.server, httpsPort)
	ended := make(chan error, 1)
	go func() {
		_, err := st.client.Dial(st.ctx, "tcp", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort), nil)
		ended <- err
	}()
	late := segment{Tuple: t.Invert(), flags: packet.SYN | packet.ACK, seq: 1000, ack: 2000}
	st.lateAnswer(t, late)
	want := expected{
		state: reject.Invalid, cause: reject.CauseSynMissed, confidence: detect.Certain, words: []string{"nf_conntrack_tcp_timeout_syn_sent"},
	}
	v := st.judged(st.client, func(v *reject.Verdict) bool { return v.Flow == late.Tuple }, want.cause)
	st.result(Reproduce, nil, "the answer to the client's SYN comes when its tracker has forgotten the SYN, and is refused",
		check{"the socket still waits", v.Evidence.Socket.Result == reject.Present})
	st.explained(st.client, late.Tuple, want)
	must(st.set(st.client, synSent, "120"))
	st.answering(httpsPort)
	must(st.server.firewall(st.ctx, httpsPort))
	err := <-ended
	st.result(Remedy, nil, fmt.Sprintf("with %s = 120 the tracker waits as long as the socket, which connects", synSent),
		check{fmt.Sprintf("the connect under way succeeds (%v)", err), err == nil})
	return nil
}

// lateAnswer waits until the client's third SYN was seen and forgotten, and
// answers it then: there are three seconds more until the fourth.
func (st *stage) lateAnswer(t conntrack.Tuple, answer segment) {
	must(st.wait("the client's SYN to be sent again", func() (bool, error) {
		s, ok, err := st.client.socket(st.ctx, t)
		return ok && s.Retransmits > 1, err
	}))
	must(st.gone(st.client, t))
	st.inject(st.server, st.client, answer)
}

const udpTimeout = "net.netfilter.nf_conntrack_udp_timeout"

// playLateDatagram is C36: the answer takes longer than the tracker
// remembers the question.
func playLateDatagram(st *stage) error {
	must(st.set(st.client, udpTimeout, "1"))
	allow := []nft.Rule{{CTState: nft.New, Proto: nft.UDP, DstPort: dns, Verdict: nft.Accept}}
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: allow}})
	server := get(st.server.ListenPacket("udp", netip.AddrPortFrom(st.server.addr, dns)))
	st.closers = append(st.closers, server)
	ask := func(wait func(conntrack.Tuple)) io.Reader {
		t := st.tuple(st.client, st.server, dns)
		t.Proto = conntrack.ProtoUDP
		c := get(st.client.Dial(st.ctx, "udp", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, dns), nil))
		st.closers = append(st.closers, c)
		_, err := io.WriteString(c, "question")
		must(err)
		b := make([]byte, 100)
		_, from, err := server.ReadFrom(b)
		must(err)
		wait(t)
		_, err = server.WriteTo([]byte("answer"), from)
		must(err)
		must(c.SetReadDeadline(time.Now().Add(time.Second)))
		return c
	}
	var asked conntrack.Tuple
	c := ask(func(t conntrack.Tuple) {
		asked = t
		must(st.gone(st.client, t))
	})
	n, err := c.Read(make([]byte, 100))
	st.result(Reproduce, nil, fmt.Sprintf("the answer comes after the tracker forgot the question, and is refused: %v", err),
		check{"no answer", n == 0 && err != nil})
	st.explained(st.client, asked.Invert(), expected{
		state: reject.New, cause: reject.CauseLateAnswer, confidence: detect.Certain, words: []string{"nf_conntrack_udp_timeout"},
	})
	must(st.set(st.client, udpTimeout, "30"))
	c = ask(func(conntrack.Tuple) { time.Sleep(2500 * time.Millisecond) })
	n, err = c.Read(make([]byte, 100))
	st.result(Remedy, nil, fmt.Sprintf("with %s = 30 the same late answer arrives", udpTimeout),
		check{fmt.Sprintf("an answer (%v)", err), n > 0})
	return nil
}
