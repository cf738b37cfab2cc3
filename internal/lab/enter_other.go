//go:build !linux

package lab

func startAgain(err error) error { return forbidden("make a network namespace", err) }
