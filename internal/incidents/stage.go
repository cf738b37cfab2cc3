package incidents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// stage is where a scenario plays: a client and a server, each with a firewall
// that is watched.
type stage struct {
	ctx            context.Context
	scenario       string
	report         func(Report)
	start          time.Time
	client, server *host
	router         *host // of those that add one
	network        *lab.Network
	ports          uint16 // given out by sourcePort
	ipv6           bool
	closers        []io.Closer
	failed         bool
	done           int // results
}

// patience is how long anything is waited for.
const patience = 40 * time.Second

func (st *stage) build(n *lab.Network, ipv6 bool) error {
	st.network, st.ipv6 = n, ipv6
	c, err1 := n.Host("client")
	s, err2 := n.Host("server")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := n.Link(c, s, lab.Near4, lab.Near6); err != nil {
		return err
	}
	if st.client, err1 = newHost(c, ipv6); err1 != nil {
		return err1
	}
	st.server, err2 = newHost(s, ipv6)
	return err2
}

// open puts up the firewalls, the server's open to port, and begins to watch.
func (st *stage) open(port uint16) error {
	if err := errors.Join(st.client.firewall(st.ctx), st.server.firewall(st.ctx, port)); err != nil {
		return err
	}
	st.tell(Set, "client: firewall accepts established and related, logs and rejects the rest (admin-prohibited)")
	st.tell(Set, "server: the same, and new connections to port %d", port)
	return errors.Join(st.client.watch(st.ctx), st.server.watch(st.ctx))
}

func (st *stage) close(cancel func()) error {
	cancel()
	var errs []error
	for _, c := range st.closers {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, h := range []*host{st.client, st.server, st.router} {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	return errors.Join(errs...)
}

func (st *stage) tell(k Kind, format string, args ...any) {
	st.report(Report{Scenario: st.scenario, At: time.Since(st.start), Kind: k, Text: fmt.Sprintf(format, args...)})
}

// set sets sysctls on a host and tells of them.
func (st *stage) set(h *host, pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		st.tell(Set, "%s: %s = %s", h.Name(), pairs[i], pairs[i+1])
	}
	return h.set(pairs...)
}

// result ends a step. checks are what had to hold, in words, and whether it
// did; the step is verified if all did.
func (st *stage) result(step Step, v *reject.Verdict, detail string, checks ...check) {
	r := Report{Scenario: st.scenario, At: time.Since(st.start), Kind: Result, Step: step, OK: true, Text: detail, Verdict: v}
	for _, c := range checks {
		if !c.ok {
			r.OK = false
			r.Text += "; NOT SEEN: " + c.what
		}
	}
	st.failed = st.failed || !r.OK
	st.done++
	st.report(r)
}

type check struct {
	what string
	ok   bool
}

// wait polls until cond holds, telling what it waits for at once and every
// second.
func (st *stage) wait(what string, cond func() (bool, error)) error {
	begun, told := time.Now(), time.Time{}
	for {
		ok, err := cond()
		if ok || err != nil {
			return err
		}
		switch {
		case st.ctx.Err() != nil:
			return context.Cause(st.ctx)
		case time.Since(begun) > patience:
			return fmt.Errorf("waited %v for %s: it did not happen", patience, what)
		case time.Since(told) >= time.Second:
			told = time.Now()
			st.tell(Wait, "%s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// listen makes the service: an ordinary listener on the server.
func (st *stage) listen(port uint16) (net.Listener, error) {
	l, err := st.server.Listen("tcp", netip.AddrPortFrom(st.server.addr, port))
	if err == nil {
		st.closers = append(st.closers, l)
	}
	return l, err
}

// link is one connection: both of its ends, and the tuple of the packets that
// each sends.
type link struct {
	client, server         net.Conn
	fromClient, fromServer conntrack.Tuple
}

// connect makes a connection from a client port, 0 for any, and has the client
// send a request that the server's application reads.
func (st *stage) connect(l net.Listener, port uint16) (*link, error) {
	k, err := st.pair(l, port)
	if err != nil {
		return nil, err
	}
	return k, send(k.client, k.server, "request\n")
}

// pair makes a connection on which nothing is sent yet.
func (st *stage) pair(l net.Listener, port uint16) (*link, error) {
	ctx, cancel := context.WithTimeout(st.ctx, 5*time.Second)
	defer cancel()
	remote := l.Addr().(*net.TCPAddr).AddrPort()
	c, err := st.client.Dial(ctx, "tcp", netip.AddrPortFrom(st.client.addr, port), remote, &lab.DialOptions{ReuseAddr: true})
	if err != nil {
		return nil, err
	}
	st.closers = append(st.closers, c)
	s, err := l.Accept()
	if err != nil {
		return nil, err
	}
	st.closers = append(st.closers, s)
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	k := &link{client: c, server: s, fromClient: conntrack.Tuple{
		Src: local.Addr().Unmap(), Dst: remote.Addr().Unmap(),
		SrcPort: local.Port(), DstPort: remote.Port(), Proto: conntrack.ProtoTCP,
	}}
	k.fromServer = k.fromClient.Invert()
	return k, nil
}

// send writes on one end and reads on the other.
func send(from, to net.Conn, text string) error {
	if _, err := io.WriteString(from, text); err != nil {
		return err
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("sent %q, received %q", text, got)
	}
	return nil
}

// entry returns the host's entry of a tuple; ok is false when there is none.
func (st *stage) entry(h *host, t conntrack.Tuple) (f conntrack.Flow, ok bool, err error) {
	f, err = h.ct.Get(st.ctx, t, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	return f, err == nil, err
}

// gone waits until a host has no entry of a tuple.
func (st *stage) gone(h *host, t conntrack.Tuple) error {
	return st.wait(fmt.Sprintf("the %s's entry to expire", h.Name()), func() (bool, error) {
		_, ok, err := st.entry(h, t)
		return !ok, err
	})
}

// noSocket waits until a host has no socket that sends packets of a tuple.
func (st *stage) noSocket(h *host, sent conntrack.Tuple) error {
	return st.wait(fmt.Sprintf("the %s's socket to go away", h.Name()), func() (bool, error) {
		_, ok, err := h.socket(st.ctx, sent)
		return !ok, err
	})
}

// socketIs waits until a host's socket is in a state.
func (st *stage) socketIs(h *host, sent conntrack.Tuple, state sockdiag.State) (s sockdiag.Socket, err error) {
	err = st.wait(fmt.Sprintf("the %s's socket to be %v", h.Name(), state), func() (ok bool, err error) {
		s, ok, err = h.socket(st.ctx, sent)
		return ok && s.State == state, err
	})
	return s, err
}

// verdict waits for a host's verdict on a flow of which it refused a packet.
func (st *stage) verdict(h *host, flow conntrack.Tuple) (v reject.Verdict, err error) {
	err = st.wait(fmt.Sprintf("the %s's verdict", h.Name()), func() (ok bool, err error) {
		v, ok, err = h.verdict(flow)
		return ok, err
	})
	return v, err
}

// finding returns the finding about a connection.
func finding(found []detect.Finding, subject conntrack.Tuple) (detect.Finding, bool) {
	want := fmt.Sprintf("%v > %v", netip.AddrPortFrom(subject.Src, subject.SrcPort), netip.AddrPortFrom(subject.Dst, subject.DstPort))
	for _, f := range found {
		if f.Subject == want {
			return f, true
		}
	}
	return detect.Finding{}, false
}

// told is a finding without its remedies, which the verdict names.
func told(f detect.Finding) string {
	return fmt.Sprintf("%s (%v): %s", f.Subject, f.Confidence, f.Cause)
}

func describe(s sockdiag.Socket) string {
	out := fmt.Sprintf("%v %v > %v", s.State, s.Local, s.Remote)
	if s.SendQueue > 0 {
		out += fmt.Sprintf(", %d bytes not acknowledged", s.SendQueue)
	}
	if s.Retransmits > 0 {
		out += fmt.Sprintf(", retransmission %d", s.Retransmits)
	}
	return out
}

// names reports whether text has all of the words.
func names(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
