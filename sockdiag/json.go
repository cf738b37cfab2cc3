package sockdiag

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MarshalJSON writes s so that UnmarshalJSON reads the same Socket back:
//
//	{
//	  "protocol": "tcp", "family": "IPv4", "state": "ESTABLISHED",
//	  "local": "192.0.2.1:443", "remote": "[2001:db8::7]:40000", "interface": 2,
//	  "timer": "keepalive", "expires_ms": 7140000, "retransmits": 0,
//	  "recv_queue": 0, "send_queue": 0,
//	  "uid": 33, "inode": 41, "cookie": 26,
//	  "shutdown": ["receive"], "v6only": false, "mark": 42, "cgroup_id": 27,
//	  "tos": 16, "tclass": 0, "class_id": 0, "raw_protocol": 1, "association": true,
//	  "options": ["is_icsk", "mc_loop"],
//	  "memory": {"rcv_alloc": 0, "rcv_buf": 131072, …},
//	  "congestion": "bbr", "bbr": {…}, "dctcp": {…}, "vegas": {…},
//	  "ulp": "mptcp", "tls": {…}, "mptcp": {…},
//	  "info": {…}
//	}
//
// What Has denies is left out, and so are a timer, an owner and a backlog that
// text did not tell, an interface, a cookie and a time of 0. A listener has
// "accept_queue" and "backlog" for the other queues. Addresses are unmapped, as
// in Socket. What has no word is State(14) and its like, a bit without one
// "0x10".
func (s Socket) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(newSocketJSON(&s))
	return b, jsonError(err)
}

// UnmarshalJSON reads what MarshalJSON writes. Keys it does not know are
// skipped. A value of another type or out of range is an error that names the
// key, and leaves s as it was.
func (s *Socket) UnmarshalJSON(b []byte) error {
	var j *socketJSON
	err := json.Unmarshal(b, &j)
	if err == nil && j != nil {
		err = j.into(s)
	}
	return jsonError(err)
}

func jsonError(err error) error {
	if err == nil || strings.HasPrefix(err.Error(), "sockdiag: JSON: ") {
		return err
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		err = fmt.Errorf("%s: %s is no %s", cmp.Or(wrong.Field, "socket"), wrong.Value, wrong.Type)
	}
	return fmt.Errorf("sockdiag: JSON: %w", err)
}

// jsonReader keeps the first fault of what JSON has as text.
type jsonReader struct{ err error }

func (r *jsonReader) fail(key, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", key, what)
	}
}

// addrPort reads an address and port; none is the zero AddrPort.
func (r *jsonReader) addrPort(key, s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		r.fail(key, strconv.Quote(s)+" is no address and port")
	}
	return a
}

func jsonAddrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// jsonWord reads a word of a type whose String writes others as Name(7), and
// tries numbers up to last for it.
func jsonWord[T interface {
	~uint8 | ~uint16
	String() string
}](r *jsonReader, key, s string, name string, last T) T {
	for v := T(0); v <= last; v++ {
		if v.String() == s {
			return v
		}
	}
	number, _ := strings.CutPrefix(s, name+"(")
	n, err := strconv.ParseUint(strings.TrimSuffix(number, ")"), 10, 16)
	v := T(n)
	if err != nil || uint64(v) != n || v.String() != s {
		r.fail(key, strconv.Quote(s)+" is no "+key)
		return 0
	}
	return v
}

func (r *jsonReader) state(key, s string) State { return jsonWord(r, key, s, "State", BoundInactive) }

// jsonBits writes the names of bits, and those without a name as a number.
func jsonBits(set uint64, names []string) []string {
	words := []string{}
	for ; set != 0; set &= set - 1 {
		if bit := bits.TrailingZeros64(set); bit < len(names) {
			words = append(words, names[bit])
		} else {
			words = append(words, fmt.Sprintf("%#x", uint64(1)<<bit))
		}
	}
	return words
}

func (r *jsonReader) bits(key string, words, names []string, size int) (set uint64) {
	for _, word := range words {
		if i := slices.Index(names, word); i >= 0 {
			set |= 1 << i
			continue
		}
		n, err := strconv.ParseUint(word, 0, size)
		if err != nil {
			r.fail(key, strconv.Quote(word)+" is no bit")
		}
		set |= n
	}
	return set
}

// The names of bits that have no words of ss.
var (
	shutdownNames    = []string{"receive", "send"}
	infoOptionsNames = []string{"timestamps", "sack", "wscale", "ecn", "ecn_seen", "syn_data"}
)

// duration reads a number of units.
func (r *jsonReader) duration(key string, n uint64, unit time.Duration) time.Duration {
	if n > uint64(1<<63-1)/uint64(unit) {
		r.fail(key, strconv.FormatUint(n, 10)+" is too long a time")
		return 0
	}
	return time.Duration(n) * unit
}

func jsonWhen[T any](ok bool, v T) *T {
	if !ok {
		return nil
	}
	return &v
}

func jsonValue[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
