package ipset

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// code is an error of ip_set, which has numbers of its own from 4096 on
// (linux/netfilter/ipset/ip_set.h, ip_set_hash.h).
type code uint32

const (
	codeFindType = code(4098)
	codeExist    = code(4103)
	codeFull     = code(4352)
)

var codes = map[code]string{
	4097:         "IPSET_ERR_PROTOCOL: the request is malformed",
	codeFindType: "IPSET_ERR_FIND_TYPE: the kernel has no such type of set, or not of this revision",
	4099:         "IPSET_ERR_MAX_SETS: there are as many sets as there can be",
	4100:         "IPSET_ERR_BUSY: a rule, another set or a dump refers to the set",
	4101:         "IPSET_ERR_EXIST_SETNAME2: a set of the new name exists",
	4102:         "IPSET_ERR_TYPE_MISMATCH: the sets are of different types",
	codeExist:    "IPSET_ERR_EXIST",
	4104:         "IPSET_ERR_INVALID_CIDR: the prefix length is out of range",
	4105:         "IPSET_ERR_INVALID_NETMASK: the netmask is out of range",
	4106:         "IPSET_ERR_INVALID_FAMILY: the address family is not that of the set",
	4107:         "IPSET_ERR_TIMEOUT: the set was made without timeouts",
	4108:         "IPSET_ERR_REFERENCED: a rule or another set refers to the set",
	4109:         "IPSET_ERR_IPADDR_IPV4: want an IPv4 address",
	4110:         "IPSET_ERR_IPADDR_IPV6: want an IPv6 address",
	4111:         "IPSET_ERR_COUNTER: the set was made without counters",
	4112:         "IPSET_ERR_COMMENT: the set was made without comments",
	4113:         "IPSET_ERR_INVALID_MARKMASK: the mark mask is out of range",
	4114:         "IPSET_ERR_SKBINFO: the set was made without skbinfo",
	4115:         "IPSET_ERR_BITMASK_NETMASK_EXCL: a bitmask and a netmask exclude each other",
	codeFull:     "IPSET_ERR_HASH_FULL: the set holds maxelem entries",
	4353:         "IPSET_ERR_HASH_ELEM: the address 0 cannot be in a set",
	4354:         "IPSET_ERR_INVALID_PROTO: no such protocol",
	4355:         "IPSET_ERR_MISSING_PROTO: want a protocol",
	4356:         "IPSET_ERR_HASH_RANGE_UNSUPPORTED: no ranges in this type of set",
	4357:         "IPSET_ERR_HASH_RANGE: the range is out of range",
}

func (c code) Error() string {
	if text, ok := codes[c]; ok {
		return text
	}
	return fmt.Sprintf("error %d of ip_set", uint32(c))
}

// Is makes what a code means known to errors.Is.
func (c code) Is(target error) bool {
	switch c {
	case codeFull:
		return target == ban.ErrFull //nolint:errorlint // of a sentinel
	case codeFindType:
		return target == errors.ErrUnsupported //nolint:errorlint // of a sentinel
	}
	return false
}

// explain says what the kernel's refusal of an operation on a set means; nil
// stays nil.
func (s *set) explain(op string, err error) error {
	var refused *nfnl.Error
	if err == nil || !errors.As(err, &refused) {
		return err
	}
	switch c := code(refused.Errno); {
	case c == codeExist && op == "delete":
		return fs.ErrNotExist
	case c > 4096 && op == "add", c > 4096 && op == "delete":
		return c
	case c > 4096:
		err = c
	case refused.Errno == syscall.ENOENT:
		err = fmt.Errorf("the set is gone: %w", err)
	case refused.Errno == syscall.EPERM:
		err = fmt.Errorf("%w: needs CAP_NET_ADMIN in the user namespace that owns the network namespace "+
			"(run as root, or: setcap cap_net_admin+ep PROGRAM)", err)
	case refused.Errno == syscall.EINVAL && (op == "list" || op == "type"):
		// nfnetlink_rcv_msg answers so for a subsystem that is not there.
		err = fmt.Errorf("%w: no ip_set in this kernel: %w (modprobe ip_set)", err, errors.ErrUnsupported)
	}
	return fmt.Errorf("%s set %s: %w", op, s.name, err)
}

// ofEntry reports an error that is of single entries, not of the set or of the
// conversation.
func ofEntry(err error) bool {
	var c code
	return errors.As(err, &c) || err == fs.ErrNotExist //nolint:errorlint // as explain made it
}
