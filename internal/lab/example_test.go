package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// A program makes two hosts and connects one to the other. Its main calls
// lab.Enter first.
func Example() {
	err := meet()
	if no, ok := errors.AsType[*lab.Forbidden](err); ok {
		fmt.Fprintln(os.Stderr, no) // says what forbids it and how to allow it
		err = nil
	}
	fmt.Println("error:", err)
	// Output: error: <nil>
}

func meet() error {
	n, err := lab.Open()
	if err != nil {
		return err
	}
	defer n.Close()
	client, err1 := n.Host("client")
	server, err2 := n.Host("server")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := n.Link(client, server, lab.Near4, lab.Near6); err != nil {
		return err
	}
	l, err := server.Listen("tcp", netip.AddrPortFrom(server.Addr6(), 80))
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := client.Dial(context.Background(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(server.Addr6(), 80), nil)
	if err != nil {
		return err
	}
	return c.Close()
}

func ExampleForbidden() {
	var err error = &lab.Forbidden{
		Tried: "clone(CLONE_NEWUSER | CLONE_NEWNET)",
		What:  "user.max_user_namespaces is 0",
		How:   "sysctl -w user.max_user_namespaces=10000",
		Err:   os.ErrPermission,
	}
	fmt.Println(err)
	fmt.Println(errors.Is(err, os.ErrPermission))
	// Output:
	// lab: clone(CLONE_NEWUSER | CLONE_NEWNET): permission denied
	// forbidden by: user.max_user_namespaces is 0
	// to allow it: sysctl -w user.max_user_namespaces=10000
	// true
}
