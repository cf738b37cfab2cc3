package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Error says what was wrong with which object. It answers errors.Is for what
// the kernel said: fs.ErrNotExist, fs.ErrPermission, errors.ErrUnsupported.
type Error struct {
	// Object is a table, chain or rule: "rule 3 of chain input of table inet
	// lab". Rules count from 1. Empty is the request as a whole.
	Object string
	Err    error

	flag bool // the object is a table with flags
}

func (e *Error) Error() string {
	if e.Object == "" {
		return "nft: " + e.Err.Error()
	}
	return "nft: " + e.Object + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

func tableObject(t Table) string { return fmt.Sprintf("table %v %s", t.Family, t.Name) }

func helperObject(t Table, h CTHelper) string {
	return fmt.Sprintf("ct helper %s of %s", h.Name, tableObject(t))
}

func chainObject(t Table, c Chain) string {
	return fmt.Sprintf("chain %s of %s", c.Name, tableObject(t))
}

func ruleObject(t Table, c Chain, i int) string {
	return fmt.Sprintf("rule %d of %s", i+1, chainObject(t, c))
}

// explain names the object a transaction failed on. nil stays nil.
func (b *batch) explain(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Err: err}
	if be, ok := errors.AsType[*nfnl.BatchError](err); ok {
		about := b.objects[be.Index]
		e.Object, e.Err, e.flag = about.name, be.Err, about.flag
		if about.name != "" && errors.Is(be.Err, syscall.EPERM) { // privileges are asked for once, at the begin of the batch
			e.Err = fmt.Errorf("%w: %w", ErrOwned, be.Err)
			return e
		}
		if about.lacks != "" && errors.Is(be.Err, fs.ErrNotExist) {
			e.Err = fmt.Errorf("the kernel lacks %s: %w: %w", about.lacks, errors.ErrUnsupported, be.Err)
		}
	}
	e.Err = privilege(e.Err)
	return e
}

func privilege(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: needs CAP_NET_ADMIN in the user namespace that owns the network namespace (setcap cap_net_admin=ep PROGRAM)", err)
}
