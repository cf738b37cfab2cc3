package sockdiag

import (
	"fmt"
	"strconv"
	"strings"
)

// State is the state of a TCP socket, with the kernel's numbers (enum in
// include/net/tcp_states.h).
type State uint8

// The states of a TCP socket.
const (
	Established State = 1  // TCP_ESTABLISHED
	SynSent     State = 2  // TCP_SYN_SENT
	SynRecv     State = 3  // TCP_SYN_RECV, shown for TCP_NEW_SYN_RECV too
	FinWait1    State = 4  // TCP_FIN_WAIT1
	FinWait2    State = 5  // TCP_FIN_WAIT2
	TimeWait    State = 6  // TCP_TIME_WAIT
	Close       State = 7  // TCP_CLOSE
	CloseWait   State = 8  // TCP_CLOSE_WAIT
	LastAck     State = 9  // TCP_LAST_ACK
	Listen      State = 10 // TCP_LISTEN
	Closing     State = 11 // TCP_CLOSING
	// NewSynRecv is TCP_NEW_SYN_RECV: a handshake that the kernel keeps as a
	// request, before there is a socket. Dumps show it as SynRecv, and a
	// Query takes either to mean both.
	NewSynRecv State = 12
	// BoundInactive is TCP_BOUND_INACTIVE: a socket that has a port by bind(2)
	// and neither listens nor connects. It is for Query.States only: the rows
	// show Close. Kernels before Linux 6.8 have no such rows to give.
	BoundInactive State = 13
)

// stateNames holds the kernel's word and that of ss(8).
var stateNames = [...]struct{ kernel, ss string }{
	Established:   {"ESTABLISHED", "ESTAB"},
	SynSent:       {"SYN_SENT", "SYN-SENT"},
	SynRecv:       {"SYN_RECV", "SYN-RECV"},
	FinWait1:      {"FIN_WAIT1", "FIN-WAIT-1"},
	FinWait2:      {"FIN_WAIT2", "FIN-WAIT-2"},
	TimeWait:      {"TIME_WAIT", "TIME-WAIT"},
	Close:         {"CLOSE", "UNCONN"},
	CloseWait:     {"CLOSE_WAIT", "CLOSE-WAIT"},
	LastAck:       {"LAST_ACK", "LAST-ACK"},
	Listen:        {"LISTEN", "LISTEN"},
	Closing:       {"CLOSING", "CLOSING"},
	NewSynRecv:    {"NEW_SYN_RECV", "NEW-SYN-RECV"},
	BoundInactive: {"BOUND_INACTIVE", "BOUND-INACTIVE"},
}

// String returns the kernel's word, which is also that of netstat(8):
// ESTABLISHED, CLOSE_WAIT. A state that has none is written as State(14).
func (s State) String() string {
	if s == 0 || int(s) >= len(stateNames) {
		return "State(" + strconv.Itoa(int(s)) + ")"
	}
	return stateNames[s].kernel
}

// SS returns the word ss(8) prints: ESTAB, CLOSE-WAIT, UNCONN. Where ss has
// none it is made of String's.
func (s State) SS() string {
	if s == 0 || int(s) >= len(stateNames) {
		return s.String()
	}
	return stateNames[s].ss
}

// stateAliases holds the words of ss(8) filters and of netstat(8) that are
// neither String's nor SS's, folded.
var stateAliases = map[string]State{
	"closed":      Close,
	"unconnected": Close,
	"listening":   Listen,
	"synrcv":      SynRecv,
}

// ParseState reads a state's name as the kernel, ss(8) or netstat(8) write it,
// in any case: ESTABLISHED, ESTAB, close-wait, FIN-WAIT-1, fin_wait1,
// listening.
func ParseState(name string) (State, error) {
	folded := foldState(name)
	for s := Established; int(s) < len(stateNames); s++ {
		if folded == foldState(stateNames[s].kernel) || folded == foldState(stateNames[s].ss) {
			return s, nil
		}
	}
	if s, ok := stateAliases[folded]; ok {
		return s, nil
	}
	return 0, fmt.Errorf("sockdiag: unknown TCP state %q", name)
}

var stateFolder = strings.NewReplacer("-", "", "_", "")

func foldState(name string) string { return stateFolder.Replace(strings.ToLower(name)) }

// StateSet is a set of states: the bit 1<<State for each.
type StateSet uint32

// Sets that ss(8) has words for.
const (
	// Connected is every state but Listen and Close: "connected".
	Connected StateSet = allStates &^ (1<<Listen | 1<<Close)
	// Synchronized is Connected without SynSent: "synchronized".
	Synchronized StateSet = Connected &^ (1 << SynSent)
)

// allStates is every state a row can be asked for by, but BoundInactive.
const allStates StateSet = 1<<(NewSynRecv+1) - 1<<Established

// States returns the set of the given states.
func States(states ...State) StateSet {
	var set StateSet
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether s is in the set.
func (set StateSet) Has(s State) bool { return set&(1<<s) != 0 }

// String lists the states in the kernel's words: "ESTABLISHED|CLOSE_WAIT". The
// empty set is "none".
func (set StateSet) String() string {
	if set == 0 {
		return "none"
	}
	var names []string
	for s := range State(32) {
		if set.Has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, "|")
}
