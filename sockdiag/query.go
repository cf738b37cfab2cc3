package sockdiag

import (
	"fmt"
	"slices"
)

// Query selects sockets. The zero Query is every TCP socket of both families
// that listens or has a peer; with another Protocol it is every socket of it.
// It is comparable.
//
// States, Family, ports and most of Filter are selected by the kernel, before it
// writes a row; what it answers is checked again.
type Query struct {
	// Protocol is which sockets to show; 0 is TCP.
	Protocol Protocol
	// States is which states to show; 0 is all of them but BoundInactive.
	States StateSet
	// Family is which sockets to show; 0 is both families, IPv4 first. IPv4
	// connections of IPv6 sockets belong to IPv6.
	Family Family
	// LocalPort and RemotePort are the ports to show; 0 is any. The local port
	// of a raw socket is its RawProtocol.
	LocalPort, RemotePort uint16
	// Filter is a further condition. What of it the kernel can check, it does,
	// by bytecode: see Explain. A kernel that does not know an operation is
	// asked again without it, once in the life of a Conn.
	Filter Filter
	// Info asks for struct tcp_info. It is dearer: the row becomes three times
	// as long, and the kernel takes the lock of every connection it shows.
	Info bool
	// Memory asks for what the buffers hold (ss -m), and for drops.
	Memory bool
	// Congestion asks for the congestion control and its view (ss -i): see
	// Details.
	Congestion bool
	// TOS asks for TOS, TClass and ClassID (ss --tos).
	TOS bool
}

func (q Query) protocol() Protocol {
	if q.Protocol == 0 {
		return TCP
	}
	return q.Protocol
}

// op names the query in errors.
func (q Query) op() string { return "dump " + q.protocol().String() }

// families returns the dumps that answer the query, in order, or what is wrong
// with the query. Dumps in which the filter can hold for nothing are left out.
func (q Query) families() ([]Family, error) {
	families, err := q.askedFamilies()
	return slices.DeleteFunc(families, func(f Family) bool {
		plan, _ := q.plan(f, 0)
		return plan.Empty
	}), err
}

// askedFamilies returns the families that the query names.
func (q Query) askedFamilies() ([]Family, error) {
	if _, ok := protocolNames[q.protocol()]; !ok {
		return nil, fmt.Errorf("%v is no protocol that sock_diag tells of", q.Protocol)
	}
	if q.States != 0 && q.States&(allStates|1<<BoundInactive) == 0 {
		return nil, fmt.Errorf("%v: no socket is in such a state", q.States)
	}
	switch q.Family {
	case 0:
		return []Family{IPv4, IPv6}, nil
	case IPv4, IPv6:
		return []Family{q.Family}, nil
	}
	return nil, fmt.Errorf("%v is no address family of the Internet", q.Family)
}

// kernelStates returns idiag_states.
func (q Query) kernelStates() StateSet {
	set := q.States
	if set == 0 {
		set = allStates
		if q.Filter.namesInactive() {
			set |= 1 << BoundInactive
		}
	}
	if set.Has(SynRecv) || set.Has(NewSynRecv) {
		set |= 1<<SynRecv | 1<<NewSynRecv
	}
	return set
}

// rowStates returns the states that the rows of the answer may show.
func (q Query) rowStates() StateSet {
	set := q.kernelStates()
	if set.Has(BoundInactive) {
		set |= 1 << Close
	}
	return set
}

// matches reports whether s, whose state may be one of states, was asked for.
func (q Query) matches(s *Socket, states StateSet) bool {
	return states.Has(s.State) &&
		(q.LocalPort == 0 || q.LocalPort == s.Local.Port()) &&
		(q.RemotePort == 0 || q.RemotePort == s.Remote.Port()) &&
		q.Filter.Match(s)
}
