package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Network is a set of hosts and the links between them. It is safe for
// concurrent use.
type Network struct {
	mu     sync.Mutex
	hosts  map[string]*Host
	links  int
	closed bool
}

// unavailable is why Main could not make the lab available, if it could not.
var unavailable *Forbidden

// Open makes an empty network. Where namespaces are forbidden the error is a
// *Forbidden.
func Open() (*Network, error) {
	if unavailable != nil {
		return nil, unavailable
	}
	if err := probe(); err != nil {
		return nil, forbidden("make a network namespace without Main or Enter", err)
	}
	return &Network{hosts: make(map[string]*Host)}, nil
}

// Close removes all hosts. A namespace lives on while a socket, a process or a
// mount of it is left, and the kernel takes some milliseconds to remove it.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	var errs []error
	for name, h := range n.hosts {
		errs = append(errs, h.ns.close())
		delete(n.hosts, name)
	}
	return errors.Join(errs...)
}

// Host makes a host without links. Its name is also that of its neighbours'
// interfaces to it: letters, digits, "-" and "_", at most 15 of them.
func (n *Network) Host(name string) (*Host, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, fmt.Errorf("lab: host %s: network: %w", name, fs.ErrClosed)
	case n.hosts[name] != nil:
		return nil, fmt.Errorf("lab: host %s: %w", name, fs.ErrExist)
	}
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	n.hosts[name] = h
	return h, nil
}

// reserved are names that interfaces or their sysctl directories have already.
const reserved = " lo all default "

func checkName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	const most = 15 // IFNAMSIZ without its NUL
	if name == "" || len(name) > most || strings.Trim(name, allowed) != "" || strings.Contains(reserved, " "+name+" ") {
		return fmt.Errorf("lab: host %q: %w: a name is 1 to %d letters, digits, - and _, and not one of%s", name, fs.ErrInvalid, most, strings.TrimRight(reserved, " "))
	}
	return nil
}

// probe finds out whether this process can make a host.
func probe() error {
	h, err := newHost("probe")
	if err != nil {
		return err
	}
	return h.ns.close()
}

// policies are the errors with which a machine forbids, rather than fails.
var policies = []error{
	fs.ErrPermission, errors.ErrUnsupported,
	syscall.EINVAL, syscall.ENOSPC, syscall.EUSERS, syscall.EROFS,
}

// forbidden makes a *Forbidden of what the kernel refuses by policy, and leaves
// other errors as they are.
func forbidden(tried string, err error) error {
	for _, policy := range policies {
		if errors.Is(err, policy) {
			return diagnose(os.DirFS("/proc"), tried, err)
		}
	}
	return err
}
