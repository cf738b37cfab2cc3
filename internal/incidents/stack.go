package incidents

import (
	"errors"
	"fmt"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
)

// playReversePath is S4: packets come in by another link than the one by which
// answers leave, and the server's kernel takes that for forgery.
func playReversePath(st *stage) error {
	if st.ipv6 {
		return fmt.Errorf("%w: IPv6 has no rp_filter", errors.ErrUnsupported)
	}
	st.addRouter()
	st.tell(Set, "client: sends to the server past the router, by a link of their own")
	must(st.network.Route(st.client.Host, st.server.Host, single(st.server.addr)))
	must(st.set(st.server, "net.ipv4.conf.all.rp_filter", "1"))
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort)}})
	st.answering(httpsPort)
	err := st.silent(httpsPort)
	st.result(Reproduce, nil, fmt.Sprintf("a client gets no word from the server, whose firewall allows it: %v", err),
		check{"silence", errors.Is(err, errSilence)})
	st.explainCounts(st.counted(st.server, reject.CauseReversePath), expected{
		cause: reject.CauseReversePath, confidence: detect.Certain, words: []string{"net.ipv4.conf.all.rp_filter=2"},
	})
	must(st.set(st.server, "net.ipv4.conf.all.rp_filter", "2"))
	st.result(Remedy, nil, "with any route to the sender allowed a new connection is answered", st.answered(httpsPort))
	return nil
}

// playAcceptQueue is S5: a program does not accept, and its clients get no word.
func playAcceptQueue(st *stage) error {
	must(st.set(st.server, "net.core.somaxconn", "1"))
	st.walls(map[*host]wall{st.client: {}, st.server: {allow: opens(httpsPort)}})
	l := get(st.listen(httpsPort))
	st.tell(Set, "server: listens on port %d, and accepts nothing", httpsPort)
	const waiting = 2 // one more than the backlog
	for range waiting {
		_, _, err := st.dial(st.client, st.server, httpsPort)
		must(err)
	}
	st.fullQueue(waiting)
	err := st.silent(httpsPort)
	st.result(Reproduce, nil, fmt.Sprintf("the next client gets no word from the server, whose firewall allows it: %v", err),
		check{"silence", errors.Is(err, errSilence)})
	st.result(Detect, nil, "AcceptQueue: "+told(st.fullQueue(waiting)))
	st.explain(st.counted(st.server, reject.CauseAcceptQueueFull), expected{
		cause: reject.CauseAcceptQueueFull, confidence: detect.Certain,
		words: []string{fmt.Sprintf("of %v, where %d wait and the backlog is 1", l.Addr(), waiting)},
	})
	st.tell(Set, "server: accepts")
	go serve(l)
	st.result(Remedy, nil, "with the program accepting a new connection is answered", st.answered(httpsPort))
	return nil
}

// fullQueue waits until so many connections wait for the server's program.
func (st *stage) fullQueue(n uint64) detect.Finding {
	var found []detect.Finding
	must(st.wait("the accept queue to fill", func() (bool, error) {
		seen, err := st.server.look(st.ctx)
		found = detect.Find(seen, detect.AcceptQueue{})
		return len(found) == 1 && found[0].Count == n, err
	}))
	return found[0]
}
