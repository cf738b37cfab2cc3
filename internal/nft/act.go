package nft

// Verdict codes (linux/netfilter.h).
const (
	nfDrop   = 0 // NF_DROP
	nfAccept = 1 // NF_ACCEPT
)

// Kinds of the reject expression (enum nft_reject_types).
const (
	rejectICMP  = 0 // NFT_REJECT_ICMP_UNREACH
	rejectReset = 1 // NFT_REJECT_TCP_RST
	rejectICMPX = 2 // NFT_REJECT_ICMPX_UNREACH
)

// act writes what the rule does.
func (e exprs) act(r Rule) {
	if r.Counter {
		e.counter()
	}
	if r.Log != nil {
		e.log(*r.Log)
	}
	if r.Trace {
		e.trace()
	}
	if r.Helper != "" {
		e.object(objectCTHelper, r.Helper)
	}
	if r.TimeoutPolicy != "" {
		e.target("CT", 1, ctTargetInfo(r.TimeoutPolicy))
	}
	if r.Zone != 0 {
		e.zone(r.Zone)
	}
	switch {
	case r.Verdict.reject():
		e.rejectWith(r.Verdict)
	case r.Verdict.nat():
		e.translate(r)
	case r.Verdict == Accept:
		e.decide(nfAccept)
	case r.Verdict == Drop:
		e.decide(nfDrop)
	case r.Verdict == NoTrack:
		e.add("notrack", func() {})
	}
}

func (e exprs) rejectWith(v Verdict) {
	switch v {
	case RejectNoRoute:
		e.reject(rejectICMPX, 0) // NFT_REJECT_ICMPX_NO_ROUTE
	case RejectPort:
		e.reject(rejectICMPX, 1) // NFT_REJECT_ICMPX_PORT_UNREACH
	case RejectHost:
		e.reject(rejectICMPX, 2) // NFT_REJECT_ICMPX_HOST_UNREACH
	case RejectAdminProhibited:
		e.reject(rejectICMPX, 3) // NFT_REJECT_ICMPX_ADMIN_PROHIBITED
	case RejectNetProhibited:
		e.reject(rejectICMP, 9) // ICMP_NET_ANO
	case RejectHostProhibited:
		e.reject(rejectICMP, 10) // ICMP_HOST_ANO
	case RejectTCPReset:
		e.reject(rejectReset, 0)
	}
}

// translate writes a change of address.
func (e exprs) translate(r Rule) {
	addr, port := r.To.Addr(), r.To.Port()
	switch r.Verdict {
	case Masquerade:
		e.add("masq", func() {})
		return
	case Redirect:
		if port != 0 {
			e.load(reg1, big16(port))
		}
		e.redirect(port != 0)
		return
	}
	e.load(reg1, addr.AsSlice())
	if port != 0 {
		e.load(reg2, big16(port))
	}
	kind, family := uint32(dnat), IPv4
	if r.Verdict == SNAT {
		kind = snat
	}
	if addr.Is6() {
		family = IPv6
	}
	e.nat(kind, family, port != 0)
}
