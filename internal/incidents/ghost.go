package incidents

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	ctTimeout  = "net.netfilter.nf_conntrack_tcp_timeout_"
	slowPort   = 9102
	clientPort = 51522
)

// playGhost is S2: the client gives up and closes; the server's application
// answers when both trackers have forgotten the connection.
func playGhost(st *stage) error {
	err := st.set(st.server, ctTimeout+"close_wait", "3", "net.ipv4.tcp_retries2", "3")
	if err == nil {
		err = st.set(st.client, ctTimeout+"close_wait", "2", ctTimeout+"fin_wait", "2", "net.ipv4.tcp_fin_timeout", "2")
	}
	if err != nil {
		return err
	}
	l, k, err := st.clientGivesUp()
	if err != nil {
		return err
	}
	neighbour, err := st.connect(l, 0)
	if err != nil {
		return err
	}
	begun := time.Now()
	err = st.wait("the server's application to work", func() (bool, error) { return time.Since(begun) > 2*time.Second, nil })
	if err != nil {
		return err
	}
	early, err := st.server.look(st.ctx)
	if err != nil {
		return err
	}
	for _, h := range []*host{st.server, st.client} {
		if err := st.gone(h, k.fromClient); err != nil {
			return err
		}
	}
	if err := st.noSocket(st.client, k.fromClient); err != nil {
		return err
	}
	ghost, err := st.raiseGhost(k)
	if err != nil {
		return err
	}
	if err := st.reusePort(l, k, ghost); err != nil {
		return err
	}
	if err := st.detectGhost(k, early, ghost); err != nil {
		return err
	}
	if err := st.explainGhost(k, ghost); err != nil {
		return err
	}
	return st.deleteGhost(l, k, neighbour)
}

// clientGivesUp makes the connection and has the client close it while the
// server's application is still at work.
func (st *stage) clientGivesUp() (net.Listener, *link, error) {
	if err := st.open(slowPort); err != nil {
		return nil, nil, err
	}
	l, err := st.listen(slowPort)
	if err != nil {
		return nil, nil, err
	}
	k, err := st.connect(l, clientPort)
	if err != nil {
		return nil, nil, err
	}
	st.tell(Seen, "client asks from port %d, server works", clientPort)
	if err := k.client.Close(); err != nil {
		return nil, nil, err
	}
	s, err := st.socketIs(st.server, k.fromServer, sockdiag.CloseWait)
	if err != nil {
		return nil, nil, err
	}
	f, _, err := st.entry(st.server, k.fromClient)
	st.tell(Seen, "client gives up and closes; server's socket: %s", describe(s))
	st.tell(Seen, "server's entry: %v", f)
	return l, k, err
}

// raiseGhost has the server's application answer at last, into nothing.
func (st *stage) raiseGhost(k *link) (ghost conntrack.Flow, err error) {
	st.tell(Seen, "both entries have expired; the server's socket is still CLOSE_WAIT")
	if _, err := io.WriteString(k.server, "late answer\n"); err != nil {
		return ghost, err
	}
	v, err := st.verdict(st.client, k.fromServer)
	if err != nil {
		return ghost, err
	}
	st.tell(Seen, "server answers; client refuses %v with %v", v.Evidence.Packet.Value, v.Evidence.ICMP.Value)
	st.tell(Seen, "client's verdict: %v", v)
	if err := st.noSocket(st.server, k.fromServer); err != nil {
		return ghost, err
	}
	ghost, _, err = st.entry(st.server, k.fromServer)
	st.tell(Seen, "server's socket has given up; its entry has not: %v", ghost)
	return ghost, err
}

// reusePort has the client connect from the same port again.
func (st *stage) reusePort(l net.Listener, k *link, ghost conntrack.Flow) error {
	_, err := st.connect(l, clientPort)
	st.tell(Seen, "client connects from port %d again: %v", clientPort, err)
	own, verr := st.verdict(st.client, k.fromClient)
	if verr != nil {
		return verr
	}
	st.tell(Seen, "client's verdict: %v", own)
	st.result(Reproduce, nil, fmt.Sprintf("the service listens, and a connect from the same port fails: %v", err),
		check{"a refused connect", prohibited(err)},
		check{"ESTABLISHED [UNREPLIED] in the server's table", ghost.TCP.State == conntrack.TCPEstablished &&
			ghost.Unreplied() && ghost.Original == k.fromServer},
		check{"the client's own verdict: refused by the peer", own.Cause == reject.CauseByPeer})
	return nil
}

// detectGhost finds the ghost in the tables, and checks what was predicted
// while the socket was in CLOSE_WAIT.
func (st *stage) detectGhost(k *link, early detect.Host, ghost conntrack.Flow) error {
	predicted, ok1 := finding(detect.Find(early, detect.LostFlows{}), k.fromServer)
	now, err := st.server.look(st.ctx)
	if err != nil {
		return err
	}
	ghosts := detect.Find(now, detect.Ghosts{})
	g, ok := finding(ghosts, k.fromServer)
	st.result(Detect, nil, fmt.Sprintf("Ghosts: %s; while the socket was CLOSE_WAIT, LostFlows had predicted: %s",
		told(g), told(predicted)),
		check{"the prediction", ok1},
		check{"exactly one ghost, this one", ok && len(ghosts) == 1 && g.Evidence.Flows[0].ID == ghost.ID})
	return nil
}

func (st *stage) explainGhost(k *link, ghost conntrack.Flow) error {
	v, err := st.verdict(st.server, k.fromClient)
	if err != nil {
		return err
	}
	e := v.Evidence.Entry.Value
	all := fmt.Sprint(v.Summary, v.Facts, v.Fix)
	st.result(Explain, &v, v.Summary,
		check{"cause ghost", v.Cause == reject.CauseGhost},
		check{"the kernel's reason, which makes it certain", v.Confidence == detect.Certain && v.Evidence.Reason != ""},
		check{"the entry that blocks", e.ID == ghost.ID && names(v.Summary, e.String())},
		check{"its remaining seconds", names(v.Summary, fmt.Sprintf("another %ds", int64(e.Timeout/time.Second)))},
		check{"tcp_loose and close_wait", names(all, "nf_conntrack_tcp_loose = 1", ctTimeout+"close_wait = 3")})
	return nil
}

// deleteGhost is the remedy: exactly the entry of the verdict goes, and the
// same connect succeeds.
func (st *stage) deleteGhost(l net.Listener, k, neighbour *link) error {
	v, err := st.verdict(st.server, k.fromClient)
	if err != nil {
		return err
	}
	if err := st.server.ct.Delete(st.ctx, v.Evidence.Entry.Value); err != nil {
		return err
	}
	_, left, err := st.entry(st.server, k.fromServer)
	if err != nil {
		return err
	}
	_, kept, err := st.entry(st.server, neighbour.fromClient)
	if err != nil {
		return err
	}
	st.tell(Seen, "deleted entry %d on the server; the neighbour's connection keeps its entry: %v",
		v.Evidence.Entry.Value.ID, kept)
	again, err := st.connect(l, clientPort)
	if err == nil {
		err = send(again.server, again.client, "answer\n")
	}
	talk := send(neighbour.server, neighbour.client, "still here\n")
	st.result(Remedy, nil, "the entry deleted, the same connect from the same port succeeds",
		check{"the ghost gone", !left},
		check{fmt.Sprintf("a neighbour's entry and connection alive (%v)", talk), kept && talk == nil},
		check{fmt.Sprintf("connect, request and answer (%v)", err), err == nil})
	return nil
}
