//go:build !linux

package lab

import "net"

func inject(port, port, []byte) error { return unsupported() }

func sequences(net.Conn) (send, recv uint32, err error) { return 0, 0, unsupported() }
