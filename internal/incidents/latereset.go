package incidents

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
)

// prohibited reports the errors that connect(2) gives for an administrative
// prohibition: EHOSTUNREACH for IPv4, "no route to host", and EACCES for IPv6.
func prohibited(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES)
}

// playLateReset is the other half of S2: with close_wait longer than the
// request, the same late answer draws a RST, and nothing is left behind.
func playLateReset(st *stage) error {
	err := st.set(st.server, ctTimeout+"close_wait", "60")
	if err == nil {
		err = st.set(st.client, ctTimeout+"close_wait", "60", "net.ipv4.tcp_fin_timeout", "2")
	}
	if err != nil {
		return err
	}
	l, k, err := st.clientGivesUp()
	if err != nil {
		return err
	}
	if err := st.noSocket(st.client, k.fromClient); err != nil {
		return err
	}
	v, err := st.predict(k)
	if err != nil {
		return err
	}
	f, reset, err := st.answerReset(k)
	if err != nil {
		return err
	}
	now, err := st.server.look(st.ctx)
	if err != nil {
		return err
	}
	st.result(Reproduce, nil, fmt.Sprintf("the late answer draws a RST: the server's application gets %q, its entry is %v",
		reset, f.TCP.State),
		check{"ECONNRESET or EPIPE", errors.Is(reset, syscall.ECONNRESET) || errors.Is(reset, syscall.EPIPE)},
		check{"the entry CLOSE, [ASSURED], the one of the connection", f.TCP.State == conntrack.TCPClose && f.Assured() &&
			f.Original == k.fromClient})
	ghosts, lost := detect.Find(now, detect.Ghosts{}), detect.Find(now, detect.LostFlows{})
	st.result(Detect, nil, fmt.Sprintf("the server's table is clean: %d ghosts, %d lost flows", len(ghosts), len(lost)),
		check{"no ghost and no lost flow", len(ghosts)+len(lost) == 0})
	st.result(Explain, &v, v.Summary,
		check{"cause closing-entry-ends, told before the answer", v.Cause == reject.CauseClosingEntryEnds})
	again, err := st.connect(l, clientPort)
	if err == nil {
		err = send(again.server, again.client, "answer\n")
	}
	st.result(Remedy, nil, fmt.Sprintf("with %sclose_wait = 60 on both, longer than the request, the same source port connects at once",
		ctTimeout), check{fmt.Sprintf("connect, request and answer (%v)", err), err == nil})
	return nil
}

// predict explains the socket in CLOSE_WAIT before it answers.
func (st *stage) predict(k *link) (reject.Verdict, error) {
	s, ok, err := st.server.socket(st.ctx, k.fromServer)
	if err != nil || !ok {
		return reject.Verdict{}, errors.Join(err, st.ctx.Err())
	}
	f, ok, err := st.entry(st.server, k.fromServer)
	if err != nil {
		return reject.Verdict{}, err
	}
	settings, err := conntrack.ReadSettings(st.server.FS())
	if err != nil {
		return reject.Verdict{}, err
	}
	e := reject.Evidence{Socket: reject.Found(s), Settings: reject.Found(settings), Entry: reject.NotFound[conntrack.Flow]()}
	if ok {
		e.Entry = reject.Found(f)
	}
	return reject.Explain(e), nil
}

// answerReset has the server answer late, and sees the RST.
func (st *stage) answerReset(k *link) (f conntrack.Flow, reset error, err error) {
	if _, err := io.WriteString(k.server, "late answer\n"); err != nil {
		return f, nil, err
	}
	st.tell(Seen, "client's socket is gone, both entries are not; server answers")
	err = st.wait("the RST", func() (ok bool, err error) {
		f, ok, err = st.entry(st.server, k.fromClient)
		return ok && f.TCP.State == conntrack.TCPClose, err
	})
	if err != nil {
		return f, nil, err
	}
	st.tell(Seen, "client's kernel sends a RST; server's entry: %v", f)
	if err := k.server.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return f, nil, err
	}
	if _, err := io.Copy(io.Discard, k.server); err != nil {
		reset = err
	} else {
		_, reset = io.WriteString(k.server, "more\n")
	}
	_, alive, err := st.server.socket(st.ctx, k.fromServer)
	if alive {
		reset = errors.Join(reset, errors.New("the socket is still there"))
	}
	return f, reset, err
}
