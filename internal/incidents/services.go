package incidents

import (
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// playNotAllowed is C19: a service runs, and no rule lets anyone in.
func playNotAllowed(st *stage) error {
	must(st.open(httpsPort))
	st.answering(httpsPort + 1)
	flow := st.refusedConnect(httpsPort + 1)
	st.explained(st.server, flow, expected{
		state: reject.New, cause: reject.CauseNotAllowed, confidence: detect.Likely, surer: ruleKnown, words: []string{fmt.Sprint(httpsPort + 1)},
	})
	st.change(st.server, fmt.Sprintf("lets new connections to port %d in", httpsPort+1), wall{allow: opens(httpsPort, httpsPort+1)})
	st.result(Remedy, nil, "with the rule the same connect is answered", st.answered(httpsPort+1))
	return nil
}

// playNoService is C20: nothing listens, and the firewall refuses rightly.
func playNoService(st *stage) error {
	must(st.open(httpsPort))
	flow := st.refusedConnect(httpsPort + 1)
	st.explained(st.server, flow, expected{
		state: reject.New, cause: reject.CauseNoService, confidence: detect.Likely, surer: ruleKnown, words: []string{fmt.Sprint(httpsPort + 1)},
	})
	st.answering(httpsPort + 1)
	st.change(st.server, fmt.Sprintf("the service starts, and port %d is open", httpsPort+1), wall{allow: opens(httpsPort, httpsPort+1)})
	st.result(Remedy, nil, "with the service there the same connect is answered", st.answered(httpsPort+1))
	return nil
}

// playByPeer is C26: all that the client knows is the peer's ICMP error.
func playByPeer(st *stage) error {
	must(st.open(httpsPort))
	st.answering(httpsPort + 1)
	flow := st.refusedConnect(httpsPort + 1)
	st.explained(st.client, flow, expected{
		cause: reject.CauseByPeer, confidence: detect.Possible, words: []string{"on the peer: allow the port"},
	})
	st.change(st.server, fmt.Sprintf("lets new connections to port %d in", httpsPort+1), wall{allow: opens(httpsPort + 1)})
	st.result(Remedy, nil, "with the port allowed on the peer the same connect is answered", st.answered(httpsPort+1))
	return nil
}

// playOnPath is C25: a router between the two refuses.
func playOnPath(st *stage) error {
	st.addRouter()
	st.tell(Set, "router: forwards what belongs to a connection, and nothing new")
	st.walls(map[*host]wall{st.client: {}, st.router: {hook: nft.Forward}})
	st.answering(httpsPort)
	flow := st.refusedConnect(httpsPort)
	routers, _ := st.router.Addrs(st.client.Host)
	if st.ipv6 {
		_, routers = st.router.Addrs(st.client.Host)
	}
	st.explained(st.client, flow, expected{
		cause: reject.CauseOnPath, confidence: detect.Possible, words: []string{routers.String(), "on the path"},
	})
	st.change(st.router, fmt.Sprintf("forwards new connections to port %d", httpsPort), wall{hook: nft.Forward, allow: opens(httpsPort)})
	st.result(Remedy, nil, "with the port allowed on the router the same connect is answered", st.answered(httpsPort))
	return nil
}
