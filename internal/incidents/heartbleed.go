package incidents

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// tlsPort is any port.
const tlsPort = 9443

const dropsAttacker = "drop the attacker"

// heartbleedAttack is a heartbeat request of 3 bytes that claims 16384.
var heartbleedAttack = []byte{24, 3, 2, 0, 3, 1, 0x40, 0}

// heartbleedRequest is one as it should be: 18 bytes of payload, 16 of padding.
func heartbleedRequest(typ byte) []byte {
	return append([]byte{24, 3, 2, 0, 37, typ, 0, 18}, make([]byte, 34)...)
}

// heartbleedLeak is what a server with the fault answers: the request, and what
// stands behind it in its memory, in two records.
func heartbleedLeak() []byte {
	b := append([]byte{24, 3, 2, 0x40, 0, 2, 0x40, 0}, make([]byte, 1<<14-3)...)
	return append(b, append([]byte{24, 3, 2, 0, 19}, make([]byte, 19)...)...)
}

// playHeartbleed is S10: a client reads a server's memory through heartbeats.
// The server's application speaks no TLS, but sends the bytes that one with
// the fault sends.
func playHeartbleed(st *stage) error {
	if err := st.packetRules(tlsPort); err != nil {
		return err
	}
	st.tell(Set, "server: firewall logs all packets of port %d", tlsPort)
	seen, err := st.packetWatch()
	if err != nil {
		return err
	}
	l, err := st.listen(tlsPort)
	if err != nil {
		return err
	}
	proper, err := st.pair(l, 0)
	if err != nil {
		return err
	}
	err = errors.Join(send(proper.client, proper.server, string(heartbleedRequest(packet.HeartbeatRequest))),
		send(proper.server, proper.client, string(heartbleedRequest(packet.HeartbeatResponse))))
	if err != nil {
		return err
	}
	k, err := st.pair(l, 0)
	if err != nil {
		return err
	}
	attack, leak := string(heartbleedAttack), string(heartbleedLeak())
	asked, answered := send(k.client, k.server, attack), send(k.server, k.client, leak)
	st.result(Reproduce, nil, fmt.Sprintf("a request of %d bytes is answered with %d", len(attack), len(leak)),
		check{fmt.Sprintf("the request (%v)", asked), asked == nil}, check{fmt.Sprintf("the answer (%v)", answered), answered == nil})
	if err := st.heartbleedDetect(k, proper, seen); err != nil {
		return err
	}
	return st.heartbleedRemedy(k, seen)
}

// heartbleedDetect waits for what the tracker finds, and explains it.
func (st *stage) heartbleedDetect(k, proper *link, seen *packetWatch) error {
	var over, leak, other packet.HeartbeatFinding
	err := st.wait("the tracker to see the leak", func() (bool, error) {
		_, found, err := seen.findings()
		for _, f := range found {
			switch port := f.From.Port(); {
			case port == k.fromClient.SrcPort && f.Fault == packet.Overread:
				over = f
			case f.To.Port() == k.fromClient.SrcPort && f.Fault == packet.Leak:
				leak = f
			case port == proper.fromClient.SrcPort || f.To.Port() == proper.fromClient.SrcPort:
				other = f
			}
		}
		return leak.Fault != 0, err
	})
	if err != nil {
		return err
	}
	st.result(Detect, nil, fmt.Sprintf("%v; and %v", over, leak),
		check{"the request, certain", over.Confidence == packet.Certain && over.Extra == 1<<14},
		check{"the response, certain", leak.Confidence == packet.Certain && leak.Request == 3},
		check{"nothing about a proper heartbeat", other.Fault == 0})
	st.result(Explain, nil, fmt.Sprintf("CVE-2014-0160: the server trusts payload_length (%d) over the length of the record (%d), and "+
		"returned %d bytes of its memory to %v; it was read in the clear, so nothing is left to guess; encrypted heartbeats show their "+
		"lengths alone; fix: OpenSSL 1.0.1g or later, new keys and certificates, and ban %v",
		over.Heartbeat.Payload, over.Heartbeat.Length, leak.Extra, leak.To.Addr(), over.From.Addr()),
		check{"the claim and the record", over.Heartbeat.Payload == 1<<14 && over.Heartbeat.Length == 3})
	return nil
}

// heartbleedRemedy bans the attacker: the same request gets no answer.
func (st *stage) heartbleedRemedy(k *link, seen *packetWatch) error {
	ban := netip.PrefixFrom(st.client.addr, st.client.addr.BitLen())
	err := st.packetRules(tlsPort, nft.Rule{Src: ban, Counter: true, Verdict: nft.Drop, Comment: dropsAttacker})
	if err != nil {
		return err
	}
	st.tell(Set, "server: firewall drops all packets of %v", st.client.addr)
	if _, err := k.client.Write(heartbleedAttack); err != nil {
		return err
	}
	attacks, leaks := 0, 0
	err = st.wait("the second attack among the logged packets", func() (bool, error) {
		_, found, err := seen.findings()
		attacks, leaks = 0, 0
		for _, f := range found {
			switch f.Fault {
			case packet.Overread:
				attacks++
			case packet.Leak:
				leaks++
			}
		}
		return attacks > 1, err
	})
	if err != nil {
		return err
	}
	unread := readFor(k.server, 300*time.Millisecond)
	counters, err := st.server.Counters(st.ctx, nft.INet, "filter", "input")
	var drops uint64
	for _, c := range counters {
		if c.Comment == dropsAttacker {
			drops = c.Packets
		}
	}
	st.result(Remedy, nil, fmt.Sprintf("with the client banned, the same request on the open connection is dropped (%d packets) and "+
		"gets no answer", drops),
		check{"the drop", drops > 0},
		check{fmt.Sprintf("nothing for the server to read (%v)", unread), errors.Is(unread, os.ErrDeadlineExceeded)},
		check{"no second leak", leaks == 1})
	return err
}
