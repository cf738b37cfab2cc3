package incidents

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// nearMisses look like a scenario, and have another cause.
var nearMisses = []struct {
	like, name string
	play       func(*stage) reject.Verdict
	want       reject.Cause
}{
	{"wrong-zone", "one zone for both directions, but for answers that are not tracked", zonedUntracked,
		reject.CauseUntrackedReturn},
	{"untracked-return", "answers in another zone, and an exemption of something else", zonedBesideExemption,
		reject.CauseWrongZone},
	{"not-allowed", "the service listens on another address only", listensElsewhere,
		reject.CauseNoService},
	{"ftp-passive", "the control connection has its helper, and announced another port", notAnnounced,
		reject.CauseNotAllowed},
	{"ftp-passive", "the other connection is no control connection", noControl,
		reject.CauseNotAllowed},
	{"deleted", "the entry is deleted when the socket is closed already", deletedAfterClose,
		reject.CauseLateData},
	{"out-of-window", "the next segment of a connection, with a wrong checksum", damagedInWindow,
		reject.CauseDamaged},
	{"invalid-reset", "a RST of a connection that nobody has", strangeReset,
		reject.CauseLateReset},
	{"late-datagram", "a datagram to a port that never asked", unaskedDatagram,
		reject.CauseNoService},
	{"by-peer", "the client's own rules refuse what it sends", refusedByItself,
		reject.CauseNotAllowedOut},
	{"reverse-path", "the other way again, with rules that drop what comes by it", droppedOtherWay,
		reject.CauseUnknown},
	{"accept-queue", "a listener whose queue is full but for one, and a rule that drops", droppedAtQueue,
		reject.CauseUnknown},
	{"rate-limited", "a firewall that drops instead of rejecting", droppedScan,
		reject.CauseUnknown},
	{"table-full", "a SYN that a rule drops, with room in the table", droppedSyn,
		reject.CauseUnknown},
}

// TestNearMisses stages them side by side, over both families.
func TestNearMisses(t *testing.T) {
	for name, ipv6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verdicts, errs := make([]reject.Verdict, len(nearMisses)), make([]error, len(nearMisses))
			turns := make(chan struct{}, 6)
			var wg sync.WaitGroup
			for i, n := range nearMisses {
				turns <- struct{}{}
				wg.Go(func() {
					defer func() { <-turns }()
					s := Scenario{Name: n.name, play: func(st *stage) error {
						verdicts[i] = n.play(st)
						return nil
					}}
					errs[i] = s.onStage(t.Context(), ipv6, func(Report) {}, s.act)
				})
			}
			wg.Wait()
			for i, n := range nearMisses {
				t.Run(n.like+"/"+n.name, func(t *testing.T) {
					if forbidden, ok := errors.AsType[*lab.Forbidden](errs[i]); ok && os.Getenv("CONNSLEUTH_LAB") != "require" {
						t.Skip(forbidden)
					}
					if errors.Is(errs[i], errors.ErrUnsupported) {
						t.Skip(errs[i])
					}
					if v := verdicts[i]; errs[i] != nil || v.Cause != n.want {
						t.Errorf("got %v, %v, want %v\n%q", errs[i], v, n.want, v.Facts)
					}
				})
			}
		})
	}
}

// on waits for the verdict on a flow, and a little for one that is wanted.
func (st *stage) on(h *host, flow conntrack.Tuple, want reject.Cause) reject.Verdict {
	return st.judged(h, func(v *reject.Verdict) bool { return v.Flow == flow }, want)
}

func zonedUntracked(st *stage) reject.Verdict {
	chains := []nft.Chain{
		raw(nft.Prerouting, nft.Rule{InIface: "client", Zone: 5}),
		raw(nft.Output,
			nft.Rule{Proto: nft.TCP, SrcPort: httpsPort, Verdict: nft.NoTrack},
			nft.Rule{Proto: nft.TCP, SrcPort: httpsPort, Verdict: nft.Accept}, // a zone would have it tracked again
			nft.Rule{OutIface: "client", Zone: 5}),
	}
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort), extra: chains}})
	return st.on(st.server, st.halfSeen(st.server, httpsPort, ""), reject.CauseUntrackedReturn)
}

// zonedBesideExemption is told by the kernel's word for the SYN|ACK, which Linux
// before 6.7 does not have.
func zonedBesideExemption(st *stage) reject.Verdict {
	chains := []nft.Chain{
		raw(nft.Prerouting, nft.Rule{InIface: "client", Zone: 5}),
		raw(nft.Output, nft.Rule{Proto: nft.UDP, SrcPort: dns, Verdict: nft.NoTrack}),
	}
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort), extra: chains}})
	v := st.on(st.server, st.halfSeen(st.server, httpsPort, ""), reject.CauseWrongZone)
	if v.Evidence.Answer == "" && v.Cause == reject.CauseUntrackedReturn {
		must(fmt.Errorf("%w: the kernel has no word for the SYN|ACK", errors.ErrUnsupported))
	}
	return v
}

func listensElsewhere(st *stage) reject.Verdict {
	must(st.open(httpsPort))
	loopback := netip.MustParseAddr("127.0.0.1")
	if st.ipv6 {
		loopback = netip.IPv6Loopback()
	}
	st.closers = append(st.closers, get(st.server.Listen("tcp", netip.AddrPortFrom(loopback, httpsPort+1))))
	return st.on(st.server, st.refusedConnect(httpsPort+1), reject.CauseNoService)
}

func notAnnounced(st *stage) reject.Verdict {
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: append([]nft.Rule{helpFTP()}, opens(ftpPort)...), helper: ftp}})
	l := get(st.listen(ftpPort))
	st.answering(dataPort)
	st.answering(dataPort + 1)
	_, err := st.passive(st.control(l), dataPort)
	must(err)
	return st.on(st.server, st.refusedConnect(dataPort+1), reject.CauseNotAllowed)
}

func noControl(st *stage) reject.Verdict {
	must(st.open(httpsPort))
	st.served(httpsPort)
	st.answering(dataPort)
	return st.on(st.server, st.refusedConnect(dataPort), reject.CauseNotAllowed)
}

func deletedAfterClose(st *stage) reject.Verdict {
	must(st.open(dbPort))
	_, k := st.served(dbPort)
	must(k.client.Close())
	_, err := st.socketIs(st.server, k.fromServer, sockdiag.CloseWait)
	must(err)
	f, _, err := st.entry(st.client, k.fromClient)
	must(err)
	must(st.client.ct.Delete(st.ctx, f))
	_, err = io.WriteString(k.server, "late\n")
	must(err)
	return st.on(st.client, k.fromServer, reject.CauseLateData)
}

func damagedInWindow(st *stage) reject.Verdict {
	must(st.open(httpsPort))
	_, k := st.served(httpsPort)
	st.forge(k, 0, segment{flags: packet.PSH | packet.ACK, data: "next\n", damaged: true})
	return st.on(st.server, k.fromClient, reject.CauseDamaged)
}

func strangeReset(st *stage) reject.Verdict {
	must(st.open(httpsPort))
	s := segment{Tuple: st.tuple(st.client, st.server, httpsPort), flags: packet.RST, seq: 1}
	st.inject(st.client, st.server, s)
	return st.on(st.server, s.Tuple, reject.CauseLateReset)
}

func unaskedDatagram(st *stage) reject.Verdict {
	must(st.open(httpsPort))
	t := st.tuple(st.client, st.server, dns)
	t.Proto = conntrack.ProtoUDP
	c := get(st.client.Dial(st.ctx, "udp", netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, dns), nil))
	st.closers = append(st.closers, c)
	_, err := io.WriteString(c, "news")
	must(err)
	return st.on(st.server, t, reject.CauseNoService)
}

func refusedByItself(st *stage) reject.Verdict {
	refuse := nft.Chain{Name: "own", Hook: nft.Output, Priority: 1, Rules: []nft.Rule{
		{Proto: nft.TCP, DstPort: httpsPort, CTState: nft.New, Log: logAs("new ")},
		{Proto: nft.TCP, DstPort: httpsPort, Verdict: nft.RejectAdminProhibited},
	}}
	st.walls(map[*host]wall{st.client: {extra: []nft.Chain{refuse}}, st.server: {allow: opens(httpsPort)}})
	st.answering(httpsPort)
	_, flow, err := st.dial(st.client, st.server, httpsPort)
	if err == nil {
		must(errors.New("a connect that its own host refuses succeeds"))
	}
	return st.on(st.client, flow, reject.CauseNotAllowedOut)
}

func droppedScan(st *stage) reject.Verdict {
	st.walls(map[*host]wall{st.server: {refuse: nft.Drop}})
	return reject.Explain(st.scan())
}

func droppedSyn(st *stage) reject.Verdict {
	st.walls(map[*host]wall{st.server: {refuse: nft.Drop}})
	was := st.tally(st.server)
	if err := st.silent(httpsPort); !errors.Is(err, errSilence) {
		must(fmt.Errorf("the SYN was answered: %w", err))
	}
	return reject.Explain(st.since(st.server, was))
}

// droppedOtherWay has the SYN come by another link than the one by which the
// answer would leave, which the kernel allows and a rule does not.
func droppedOtherWay(st *stage) reject.Verdict {
	st.addRouter()
	must(st.network.Route(st.client.Host, st.server.Host, single(st.server.addr)))
	must(st.set(st.server, "net.ipv4.conf.all.rp_filter", "2"))
	return droppedSyn(st)
}

// droppedAtQueue has connections wait that are not accepted, and drops the next.
func droppedAtQueue(st *stage) reject.Verdict {
	must(st.set(st.server, "net.core.somaxconn", "1"))
	get(st.listen(httpsPort))
	_, _, err := st.dial(st.client, st.server, httpsPort)
	must(err)
	return droppedSyn(st)
}
