package incidents

import (
	"net/netip"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// Networks between the router and its neighbours; the direct link of client and
// server has lab.Near4 and lab.Near6.
var (
	clientSide = [2]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:3::/64")}
	serverSide = [2]netip.Prefix{lab.Far4, lab.Far6}
)

// addRouter puts a router between client and server. They then know each other
// by the addresses of their links to it, and have their direct link besides.
func (st *stage) addRouter() {
	r := get(st.network.Host("router"))
	must(st.network.Link(st.client.Host, r, clientSide[0], clientSide[1]))
	must(st.network.Link(r, st.server.Host, serverSide[0], serverSide[1]))
	must(st.network.Router(r, st.client.Host, st.server.Host))
	st.router = get(newHost(r, st.ipv6))
	st.router.installs = st.server.installs
	for _, h := range []*host{st.client, st.server} {
		v4, v6 := h.Addrs(r)
		h.addr = v4
		if st.ipv6 {
			h.addr = v6
		}
	}
}

// behind is the network between the router and the client or the server.
func (st *stage) behind(h *host) netip.Prefix {
	nets := serverSide
	if h == st.client {
		nets = clientSide
	}
	if st.ipv6 {
		return nets[1]
	}
	return nets[0]
}
