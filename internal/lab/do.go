package lab

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Panic is what Do panics with when fn did: the value and the stack of fn.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// Do runs fn on a thread inside the host and returns what it returns. A panic
// in fn goes on in the caller as a *Panic; runtime.Goexit, and with it
// t.FailNow, ends the caller too.
//
// Sockets opened, files of /proc read and processes started by fn are the
// host's. Goroutines started by fn are not inside. Do costs a new thread.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := h.ns.enter(); err != nil {
			return h.errorf("enter: %w", err)
		}
		return fn()
	})
}

// outcome is how a function ended.
type outcome struct {
	err      error
	panicked *Panic
	returned bool
}

// onThread runs fn on a thread that dies with it, whatever fn did to the
// thread.
func onThread(fn func() error) error {
	done := make(chan outcome, 1)
	go func() {
		// Never unlocked: the runtime ends a thread whose goroutine ends locked.
		runtime.LockOSThread()
		if onMainThread() {
			// Except this one, which it would park for ever as fn left it. Held
			// here meanwhile, it cannot be what fn gets.
			defer runtime.UnlockOSThread()
			report(done, func() error { return onThread(fn) })
			return
		}
		report(done, fn)
	}()
	o := <-done
	switch {
	case o.panicked != nil:
		panic(o.panicked)
	case !o.returned:
		runtime.Goexit()
	}
	return o.err
}

// report runs fn and tells how it ended, even if that ends the goroutine.
func report(done chan<- outcome, fn func() error) {
	var o outcome
	defer func() {
		if v := recover(); v != nil {
			o.panicked = asPanic(v)
		}
		done <- o
	}()
	o.err = fn()
	o.returned = true
}

func asPanic(v any) *Panic {
	if p, ok := v.(*Panic); ok {
		return p
	}
	return &Panic{Value: v, Stack: debug.Stack()}
}
