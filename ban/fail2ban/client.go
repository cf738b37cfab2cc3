package fail2ban

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	endOfCommand = "<F2B_END_COMMAND>"
	maxAnswer    = 64 << 20 // bytes; a ban that is listed has some 64
)

// client is one connection to the server.
type client struct {
	conn net.Conn
	ctx  context.Context //nolint:containedctx // of one call of the backend
	stop func() bool
	buf  []byte
}

// dial connects, for as long as ctx lasts.
func dial(ctx context.Context, socket string) (*client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := connect(ctx, socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w (is fail2ban-server running? systemctl start fail2ban)", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w (the socket is root's)", err)
	case err != nil:
		return nil, err
	}
	c := &client{conn: conn, ctx: ctx}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails only when closed
	return c, nil
}

// connect tries until the server has time for another: few wait in its queue
// (listen(1)), and the next is answered EAGAIN.
func connect(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	for deadline := time.Now().Add(patience); ; {
		conn, err := d.DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// close hangs up; the server takes that as well as a word of it.
func (c *client) close() {
	c.stop()
	_ = c.conn.Close() // nothing is owed
}

// call sends a command and returns the value of the answer.
func (c *client) call(words ...string) (any, error) {
	c.buf = append(appendRequest(c.buf[:0], words), endOfCommand...)
	if _, err := c.conn.Write(c.buf); err != nil {
		return nil, c.explain(err)
	}
	b, err := c.receive()
	if err != nil {
		return nil, c.explain(err)
	}
	v, err := decode(b)
	if err == nil {
		v, err = result(v)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(words[:min(len(words), 3)], " "), err)
	}
	return v, nil
}

func (c *client) explain(err error) error {
	if ctxErr := c.ctx.Err(); ctxErr != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctxErr
	}
	return err
}

// receive reads until the end of an answer.
func (c *client) receive() ([]byte, error) {
	c.buf = c.buf[:0]
	for !bytes.HasSuffix(c.buf, []byte(endOfCommand)) {
		if len(c.buf) > maxAnswer {
			return nil, fmt.Errorf("answer longer than %d bytes", maxAnswer)
		}
		if cap(c.buf)-len(c.buf) < 512 {
			c.buf = append(make([]byte, 0, 2*cap(c.buf)+4096), c.buf...)
		}
		n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err == io.EOF { //nolint:errorlint // as Read returns it
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return c.buf[:len(c.buf)-len(endOfCommand)], nil
}

// serverError is an exception of the server.
type serverError struct{ class, text string }

func (e *serverError) Error() string {
	name := e.class[strings.LastIndexByte(e.class, '.')+1:]
	return strings.TrimSuffix(fmt.Sprintf("the server says %s: %s", name, plain(e.text)), ": ")
}

// result takes an answer apart: a pair of 0 and a value, or of 1 and an
// exception, or a string that is an error.
func result(v any) (any, error) {
	if s, ok := v.(string); ok {
		return nil, &serverError{"Error", s}
	}
	pair, ok := v.(tuple)
	if !ok || len(pair) != 2 {
		return nil, fmt.Errorf("%w: no pair", errPickle)
	}
	switch code, ok := pair[0].(int64); {
	case ok && code == 0:
		return pair[1], nil
	case ok && code == 1:
		return nil, exception(pair[1])
	}
	return nil, fmt.Errorf("%w: neither success nor failure", errPickle)
}

func exception(v any) error {
	o, ok := v.(*object)
	if !ok {
		s, _ := text(v)
		return &serverError{"Exception", s}
	}
	e := &serverError{class: string(o.class)}
	for _, arg := range o.args {
		if s, ok := text(arg); ok {
			e.text += s
		}
	}
	return e
}

// number is the answer to a command that answers with one.
func (c *client) number(words ...string) (int64, error) {
	v, err := c.call(words...)
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("%s: %w: not a number", strings.Join(words[:min(len(words), 3)], " "), errPickle)
	}
	return n, nil
}

// lines is the answer to a command that answers with a list of strings; others
// in it are left out.
func (c *client) lines(words ...string) ([]string, error) {
	v, err := c.call(words...)
	if err != nil {
		return nil, err
	}
	l, ok := v.(*list)
	if !ok {
		return nil, fmt.Errorf("%s: %w: not a list", strings.Join(words, " "), errPickle)
	}
	var out []string
	for _, item := range l.items {
		if s, ok := text(item); ok {
			out = append(out, s)
		}
	}
	return out, nil
}
