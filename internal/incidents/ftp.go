package incidents

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/nft"
)

const (
	ftpPort  = 21
	dataPort = 30021
	ftp      = "ftp"
)

// helpFTP gives the kernel's FTP helper to control connections.
func helpFTP() nft.Rule {
	return nft.Rule{CTState: nft.New, Proto: nft.TCP, DstPort: ftpPort, Helper: ftp}
}

// says sends a line of the control connection, and has the other end read it.
func says(from, to net.Conn, line string) {
	_, err := io.WriteString(from, line+"\r\n")
	must(err)
	got := get(bufio.NewReader(to).ReadString('\n'))
	if strings.TrimSpace(got) != line {
		must(fmt.Errorf("sent %q, received %q", line, got))
	}
}

// commas writes an address and a port as FTP does (RFC 959): six numbers.
func commas(a netip.AddrPort) string {
	return strings.ReplaceAll(fmt.Sprintf("%v,%d,%d", a.Addr(), a.Port()>>8, a.Port()&0xff), ".", ",")
}

// control makes a control connection. The kernel's helper reads only lines that
// follow another one, which is the greeting's use (find_nl_seq,
// net/netfilter/nf_conntrack_ftp.c).
func (st *stage) control(l net.Listener) *link {
	k := get(st.connect(l, 0))
	says(k.server, k.client, "220 ready")
	return k
}

// passive has the client ask where to fetch its data (RFC 959, RFC 2428), and
// connect there.
func (st *stage) passive(control *link, port uint16) (conntrack.Tuple, error) {
	if st.ipv6 {
		says(control.client, control.server, "EPSV")
		says(control.server, control.client, fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)", port))
	} else {
		says(control.client, control.server, "PASV")
		says(control.server, control.client, "227 Entering Passive Mode ("+commas(netip.AddrPortFrom(st.server.addr, port))+")")
	}
	_, flow, err := st.dial(st.client, st.server, port)
	return flow, err
}

// active has the client say where it waits for its data, and the server connect
// there.
func (st *stage) active(control *link, port uint16) (conntrack.Tuple, error) {
	if st.ipv6 {
		says(control.client, control.server, fmt.Sprintf("EPRT |2|%v|%d|", st.client.addr, port))
	} else {
		says(control.client, control.server, "PORT "+commas(netip.AddrPortFrom(st.client.addr, port)))
	}
	_, flow, err := st.dial(st.server, st.client, port)
	return flow, err
}

// playPassiveFTP is C21: the server's firewall does not know that the data
// connection was announced.
func playPassiveFTP(st *stage) error {
	must(st.open(ftpPort))
	l := get(st.listen(ftpPort))
	for _, port := range []uint16{dataPort, dataPort + 1} {
		st.answering(port)
	}
	flow, err := st.passive(st.control(l), dataPort)
	st.missingHelper(st.server, flow, err)
	st.change(st.server, "assigns the helper to new control connections", wall{allow: append([]nft.Rule{helpFTP()}, opens(ftpPort)...), helper: ftp})
	_, err = st.passive(st.control(l), dataPort+1)
	st.result(Remedy, nil, "with the helper the announced connection is RELATED, and is let in",
		check{fmt.Sprintf("the data connection (%v)", err), err == nil})
	return nil
}

// playActiveFTP is C21 from the other side: the client's firewall refuses the
// connection that the client asked for.
func playActiveFTP(st *stage) error {
	must(st.open(ftpPort))
	l := get(st.listen(ftpPort))
	for _, port := range []uint16{dataPort, dataPort + 1} {
		st.closers = append(st.closers, get(st.client.Listen("tcp", netip.AddrPortFrom(st.client.addr, port))))
	}
	flow, err := st.active(st.control(l), dataPort)
	st.missingHelper(st.client, flow, err)
	help := nft.Chain{Name: "helpers", Hook: nft.Output, Rules: []nft.Rule{helpFTP()}}
	st.change(st.client, "assigns the helper to new control connections", wall{extra: []nft.Chain{help}, helper: ftp})
	_, err = st.active(st.control(l), dataPort+1)
	st.result(Remedy, nil, "with the helper the announced connection is RELATED, and is let in",
		check{fmt.Sprintf("the data connection (%v)", err), err == nil})
	return nil
}

func (st *stage) missingHelper(h *host, flow conntrack.Tuple, err error) {
	st.result(Reproduce, nil, fmt.Sprintf("the data connection that the control connection announced is refused: %v", err),
		check{"an administrative prohibition", prohibited(err)})
	st.explained(h, flow, expected{
		state: reject.New, cause: reject.CauseMissingHelper, confidence: detect.Possible, surer: rulesRead, words: []string{"helper", ftp},
	})
}
