//go:build !linux

package lab

import "syscall"

func setReuseAddr(uintptr) error { return unsupported() }

func dieWithThread() *syscall.SysProcAttr { return nil }
