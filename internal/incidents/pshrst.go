package incidents

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/internal/nft"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	webPort = 80
	// packetGroup is the NFLOG group of all packets of a service.
	packetGroup = 61
	dropsResets = "drop every RST"
	// resetTries connections stand for the 8,500 of the incident, and giveUp
	// for the 72 s after which the application closed them.
	resetTries = 3
	giveUp     = 300 * time.Millisecond
)

// playPshRst is S9: a client sends its requests with PSH|RST, and a rule of the
// server drops them, so that the connections hang.
func playPshRst(st *stage) error {
	// The entry is looked at after the application has given up.
	if err := st.set(st.server, "net.netfilter.nf_conntrack_tcp_timeout_close", "120"); err != nil {
		return err
	}
	if err := st.packetRules(webPort, pshRstRule); err != nil {
		return err
	}
	st.tell(Set, "server: firewall logs all packets of port %d, and drops every RST that comes in", webPort)
	seen, err := st.packetWatch()
	if err != nil {
		return err
	}
	l, err := st.listen(webPort)
	if err != nil {
		return err
	}
	var links []*link
	for range resetTries {
		k, err := st.pshRst(l, seen)
		if err != nil {
			return err
		}
		links = append(links, k)
	}
	if err := st.pshRstHangs(links); err != nil {
		return err
	}
	late, err := st.pshRstDetect(links, seen)
	if err != nil {
		return err
	}
	if err := st.pshRstExplain(links[0], late); err != nil {
		return err
	}
	return st.pshRstRemedy(l, seen)
}

var pshRstRule = nft.Rule{Proto: nft.TCP, TCPFlags: nft.TCPFlags{Mask: nft.RST, Value: nft.RST}, Counter: true,
	Verdict: nft.Drop, Comment: dropsResets}

// packetRules makes a firewall of the server that logs all packets of a
// service, in both directions, and then asks the given rules.
func (st *stage) packetRules(port uint16, rules ...nft.Rule) error {
	log := &nft.Log{Group: packetGroup}
	input := append([]nft.Rule{{Proto: nft.TCP, DstPort: port, Log: log}}, rules...)
	input = append(input, nft.Rule{CTState: nft.Established | nft.New, Verdict: nft.Accept})
	return st.server.Rules(st.ctx, nft.Table{Family: nft.INet, Name: "filter", Chains: []nft.Chain{
		{Name: "input", Hook: nft.Input, Rules: input},
		{Name: "output", Hook: nft.Output, Rules: []nft.Rule{{Proto: nft.TCP, SrcPort: port, Log: log}}},
	}})
}

// pshRst makes a connection and sends a request on it with PSH|RST.
func (st *stage) pshRst(l net.Listener, seen *packetWatch) (*link, error) {
	k, err := st.pair(l, 0)
	if err != nil {
		return nil, err
	}
	var answer packet.Header
	err = st.wait("the SYN/ACK among the logged packets", func() (ok bool, err error) {
		answer, ok, err = seen.synAck(k.fromServer)
		return ok, err
	})
	if err != nil {
		return nil, err
	}
	request := segment{Tuple: k.fromClient, seq: answer.Ack, ack: answer.Seq + 1, flags: packet.PSH | packet.RST | packet.ACK, data: pshRstRequest()}
	return k, st.client.Inject(st.server.Host, request.bytes())
}

// pshRstRequest is a request of 804 bytes.
func pshRstRequest() string {
	const start, end = "GET / HTTP/1.1\r\nHost: server\r\nCookie: ", "\r\n\r\n"
	return start + strings.Repeat("x", 804-len(start+end)) + end
}

// pshRstHangs checks what the server sees of the requests.
func (st *stage) pshRstHangs(links []*link) error {
	var drops uint64
	err := st.wait("the rule to drop the requests", func() (ok bool, err error) {
		drops, err = st.pshRstDrops()
		return drops >= resetTries, err
	})
	if err != nil {
		return err
	}
	unread, hung := 0, 0
	for _, k := range links {
		if errors.Is(readFor(k.server, giveUp), os.ErrDeadlineExceeded) {
			unread++
		}
		s, ok, err := st.server.socket(st.ctx, k.fromServer)
		if err != nil {
			return err
		}
		if ok && s.State == sockdiag.Established && s.Fields&sockdiag.FieldInfo != 0 && s.Info.BytesReceived == 0 {
			hung++
		}
	}
	st.result(Reproduce, nil, fmt.Sprintf("%d requests of 804 bytes sent with PSH|RST, %d dropped; the server's application "+
		"reads nothing, and %d of its sockets are ESTABLISHED with 0 bytes received", len(links), drops, hung),
		check{"nothing to read on any connection", unread == len(links)},
		check{"all connections established, nothing received", hung == len(links)})
	return nil
}

// pshRstDrops reads how many packets the rule has dropped.
func (st *stage) pshRstDrops() (uint64, error) {
	counters, err := st.server.Counters(st.ctx, nft.INet, "filter", "input")
	if err != nil {
		return 0, err
	}
	for _, c := range counters {
		if c.Comment == dropsResets {
			return c.Packets, nil
		}
	}
	return 0, errors.New("the rule is gone")
}

// readFor reads until something comes or the time is over.
func readFor(c net.Conn, d time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// pshRstDetect has the application give up the first connection, and finds out
// from the RST which it sends.
func (st *stage) pshRstDetect(links []*link, seen *packetWatch) (late packet.PushedReset, err error) {
	if err := links[0].server.(*net.TCPConn).SetLinger(0); err != nil { // as Close does with data unread
		return late, err
	}
	if err := links[0].server.Close(); err != nil {
		return late, err
	}
	possible := 0
	err = st.wait("the tracker to see the late RST", func() (ok bool, err error) {
		found, _, err := seen.findings()
		possible = 0
		for _, r := range found {
			switch {
			case r.Confidence == packet.Possible:
				possible++
			case r.From.Port() == links[0].fromClient.SrcPort:
				late, ok = r, true
			}
		}
		return ok, err
	})
	st.result(Detect, nil, fmt.Sprintf("from %d connections of %v; of the one that the application gave up: %v",
		possible, st.client.addr, late),
		check{"every PSH|RST", possible == len(links)},
		check{"certain: its RST has acknowledgement number 1, not 805", late.Confidence == packet.Certain &&
			late.Ack == 1 && late.Want == 805 && late.Answer.Has(packet.RST)},
		check{"TTL 64: the server itself sent it", late.TTL == 64})
	return late, err
}

// pshRstExplain names the rule, and shows what conntrack made of the packets.
func (st *stage) pshRstExplain(k *link, late packet.PushedReset) error {
	drops, err := st.pshRstDrops()
	if err != nil {
		return err
	}
	f, ok, err := st.entry(st.server, k.fromClient)
	st.result(Explain, nil, fmt.Sprintf("the rule %q (inet filter input: tcp flags rst drop) has dropped %d packets; TCP would have "+
		"closed the connection on the RST: %d bytes came to the host and %d to the application, which knows of no error and waits; "+
		"conntrack, which is asked before the rule, took them for valid: %v",
		dropsResets, drops, late.Want-1, late.Ack-1, f),
		check{"the rule's counter", drops >= resetTries},
		check{"the connection's entry in CLOSE", ok && f.TCP.State == conntrack.TCPClose},
		check{"the flags, valid to conntrack", packet.TCPFlags.Valid(packet.PSH | packet.RST | packet.ACK)})
	return err
}

// pshRstRemedy takes the rule away: the same request ends the connection.
func (st *stage) pshRstRemedy(l net.Listener, seen *packetWatch) error {
	if err := st.packetRules(webPort); err != nil {
		return err
	}
	k, err := st.pshRst(l, seen)
	if err != nil {
		return err
	}
	err = readFor(k.server, patience)
	_, alive, serr := st.server.socket(st.ctx, k.fromServer)
	st.result(Remedy, nil, fmt.Sprintf("without the rule, the same request ends the connection at once: the application gets %q", err),
		check{"ECONNRESET", errors.Is(err, syscall.ECONNRESET)},
		check{"no socket left to wait", !alive})
	return serr
}

// packetWatch reads the packets that the server's firewall logs, and has the
// trackers look at them.
type packetWatch struct {
	reader *nflog.Reader
	ended  sync.WaitGroup

	mu      sync.Mutex
	answers map[conntrack.Tuple]packet.Header // SYN/ACK
	resets  []packet.PushedReset
	beats   []packet.HeartbeatFinding
	err     error
}

func (st *stage) packetWatch() (*packetWatch, error) {
	r, err := nflog.Listen(&nflog.Config{NetNS: st.server.NetNS(), Groups: []uint16{packetGroup}})
	if err != nil {
		return nil, err
	}
	w := &packetWatch{reader: r, answers: map[conntrack.Tuple]packet.Header{}}
	st.closers = append(st.closers, w)
	w.ended.Go(func() { w.run(st) })
	return w, nil
}

func (w *packetWatch) run(st *stage) {
	resets, beats := packet.NewResetTracker(0), packet.NewHeartbeatTracker(0)
	for p, err := range w.reader.Packets(st.ctx) {
		if err != nil {
			w.fail(err)
			continue
		}
		h, err := packet.Decode(p.Payload)
		if err != nil {
			w.fail(err)
			continue
		}
		w.mu.Lock()
		if h.Flags == packet.SYN|packet.ACK {
			w.answers[headerTuple(h.Header)] = h.Header
		}
		if r, ok := resets.Packet(time.Now(), h.Header); ok {
			w.resets = append(w.resets, r)
		}
		beats.Packet(h.Header, p.Payload, func(f packet.HeartbeatFinding) { w.beats = append(w.beats, f) })
		w.mu.Unlock()
	}
}

func headerTuple(h packet.Header) conntrack.Tuple {
	return conntrack.Tuple{Src: h.Src, Dst: h.Dst, SrcPort: h.SrcPort, DstPort: h.DstPort, Proto: conntrack.ProtoTCP}
}

func (w *packetWatch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

func (w *packetWatch) synAck(t conntrack.Tuple) (packet.Header, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, ok := w.answers[t]
	return h, ok, w.err
}

func (w *packetWatch) findings() ([]packet.PushedReset, []packet.HeartbeatFinding, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.resets[:len(w.resets):len(w.resets)], w.beats[:len(w.beats):len(w.beats)], w.err
}

// Close ends the watch.
func (w *packetWatch) Close() error {
	err := w.reader.Close()
	w.ended.Wait()
	return err
}
