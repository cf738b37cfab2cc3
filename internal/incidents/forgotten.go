package incidents

import (
	"fmt"
	"io"
	"time"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/sockdiag"
)

const (
	established = "net.netfilter.nf_conntrack_tcp_timeout_established"
	// forgetAfter seconds stand for the 300 of the incident.
	forgetAfter = 2
	dbPort      = 5432
)

// playForgotten is S1: a client asks a long question of a database; while it
// waits, its own tracker forgets the connection, and its own firewall refuses
// the answer.
func playForgotten(st *stage) error {
	if err := st.set(st.client, established, fmt.Sprint(forgetAfter)); err != nil {
		return err
	}
	if err := st.open(dbPort); err != nil {
		return err
	}
	l, err := st.listen(dbPort)
	if err != nil {
		return err
	}
	k, err := st.connect(l, 0)
	if err != nil {
		return err
	}
	before, _, err := st.entry(st.client, k.fromClient)
	if err != nil {
		return err
	}
	st.tell(Seen, "client asks, server works; client's entry: %v", before)
	if err := st.gone(st.client, k.fromClient); err != nil {
		return err
	}
	st.tell(Seen, "client's entry is gone; nothing was on the wire")
	seen, err := st.client.look(st.ctx)
	if err != nil {
		return err
	}
	lost, found := finding(detect.Find(seen, detect.LostFlows{}), k.fromClient)
	v, err := st.answerRefused(k)
	if err != nil {
		return err
	}
	st.result(Detect, nil, "before anything broke, LostFlows: "+told(lost),
		check{"a socket without an entry", found})
	st.result(Explain, &v, v.Summary,
		check{"cause entry-expired", v.Cause == reject.CauseEntryExpired},
		check{"the expired entry, and the setting with its value",
			names(v.Summary, before.Original.String(), fmt.Sprintf("%s = %d", established, forgetAfter))},
		check{"certainty: the kernel told that the entry expired", v.Confidence == detect.Certain})
	return st.rememberLonger()
}

// answerRefused has the server answer, and sees the answer refused.
func (st *stage) answerRefused(k *link) (reject.Verdict, error) {
	if _, err := io.WriteString(k.server, "answer\n"); err != nil {
		return reject.Verdict{}, err
	}
	st.tell(Seen, "server answers")
	v, err := st.verdict(st.client, k.fromServer)
	if err != nil {
		return v, err
	}
	var s sockdiag.Socket
	err = st.wait("the server to retransmit", func() (ok bool, err error) {
		s, ok, err = st.server.socket(st.ctx, k.fromServer)
		return ok && s.Retransmits > 1 && s.SendQueue > 0, err
	})
	if err != nil {
		return v, err
	}
	st.tell(Seen, "client's firewall refused %v; %s", v.Evidence.Packet.Value, v.Evidence.ICMP.Value)
	st.tell(Seen, "server's socket: %s", describe(s))
	c, _, err := st.client.socket(st.ctx, k.fromClient)
	if err != nil {
		return v, err
	}
	st.tell(Seen, "client's socket: %s", describe(c))
	st.result(Reproduce, nil, "the answer is refused by the client's own firewall, again and again; the client's socket "+
		"stays ESTABLISHED and learns nothing",
		check{"an ICMP administrative prohibition from the client", v.Evidence.ICMP.Value.Prohibited() &&
			v.Evidence.ICMP.Value.Src == st.client.addr},
		check{"the client's socket ESTABLISHED with nothing received", c.State == sockdiag.Established && c.RecvQueue == 0})
	return v, nil
}

// rememberLonger is the remedy: the same question, with the tracker's memory
// longer than the answer takes.
func (st *stage) rememberLonger() error {
	if err := st.set(st.client, established, "7440"); err != nil {
		return err
	}
	l, err := st.listen(dbPort + 1)
	if err != nil {
		return err
	}
	if err := st.server.firewall(st.ctx, dbPort, dbPort+1); err != nil {
		return err
	}
	k, err := st.connect(l, 0)
	if err != nil {
		return err
	}
	begun := time.Now()
	idle := (forgetAfter + 1) * time.Second
	err = st.wait("the server to work as long as before", func() (bool, error) { return time.Since(begun) > idle, nil })
	if err != nil {
		return err
	}
	err = send(k.server, k.client, "answer\n")
	f, ok, entryErr := st.entry(st.client, k.fromClient)
	st.tell(Seen, "client's entry: %v", f)
	st.result(Remedy, nil, fmt.Sprintf("with %s = 7440, the same question is answered after %v", established, idle),
		check{fmt.Sprintf("the answer (%v)", err), err == nil},
		check{"the entry alive", ok})
	return entryErr
}
