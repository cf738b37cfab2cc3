package snapshot

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/connsleuth/connsleuth/conntrack"
)

// Kind is what a file holds.
type Kind string

// The kinds of files. Of flows, and of sockets, only those files are read that
// tell most: recordings before text, and ss before netstat before /proc.
const (
	Unknown         Kind = "unknown"
	RecordedFlows   Kind = "recorded flows"
	RecordedSockets Kind = "recorded sockets"
	RecordedHost    Kind = "recorded host"
	TextFlows       Kind = "conntrack -L"
	SSSockets       Kind = "ss -tan"
	NetstatSockets  Kind = "netstat -nat"
	ProcSockets     Kind = "/proc/net/tcp"
	Sysctls         Kind = "sysctl -a"
	Stats           Kind = "/proc/net/stat/nf_conntrack"
	ToolStats       Kind = "conntrack -S"
	Slabs           Kind = "/proc/slabinfo"
	SNMP            Kind = "/proc/net/snmp"
	Netstat         Kind = "/proc/net/netstat"
	Sockstat        Kind = "/proc/net/sockstat"
	Sockstat6       Kind = "/proc/net/sockstat6"
	Addresses       Kind = "ip addr"
	Log             Kind = "dmesg"
)

// places are where files of /proc belong, of which one each is read: the last
// that was written.
var places = map[Kind]string{
	Stats: "net/stat/nf_conntrack", Slabs: "slabinfo", SNMP: "net/snmp", Netstat: "net/netstat",
	Sockstat: "net/sockstat", Sockstat6: "net/sockstat6",
}

// peekSize is how much of a file tells its kind.
const peekSize = 16 << 10

// open opens a file, decompressed, and tells its kind.
func open(dir fs.FS, name string) (fs.File, Kind, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, Unknown, err
	}
	in := bufio.NewReaderSize(f, peekSize)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" { // RFC 1952
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, Unknown, errors.Join(err, f.Close())
		}
		in = bufio.NewReaderSize(z, peekSize)
	}
	head, err := in.Peek(peekSize)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, Unknown, errors.Join(err, f.Close())
	}
	return file{f, in}, kindOf(head), nil
}

// file is a file that is read decompressed. Its size is that on disk.
type file struct {
	fs.File
	in io.Reader
}

// Read implements fs.File.
func (f file) Read(b []byte) (int, error) { return f.in.Read(b) }

// kindOf tells the kind by the first line that has one. The head may end
// within a line.
func kindOf(head []byte) Kind {
	for line := range bytes.Lines(head) {
		text := strings.TrimRight(string(line), "\r\n")
		if kind := kindOfLine(text); kind != Unknown {
			return kind
		}
	}
	return Unknown
}

// shapes are the lines that tell a kind, headers first.
var shapes = []struct {
	kind Kind
	line *regexp.Regexp
}{
	{RecordedFlows, regexp.MustCompile(`^{"format":"connsleuth-flows"`)},
	{RecordedSockets, regexp.MustCompile(`^{"format":"connsleuth-sockets"`)},
	{RecordedHost, regexp.MustCompile(`^{"format":"connsleuth-host"`)},
	{Stats, regexp.MustCompile(`^entries +(searched|clashres) +found `)},
	{ToolStats, regexp.MustCompile(`^cpu=[0-9]+\s.*\bdrop=[0-9]`)},
	{Slabs, regexp.MustCompile(`^slabinfo - version`)},
	{SNMP, regexp.MustCompile(`^Ip: Forwarding `)},
	{Netstat, regexp.MustCompile(`^TcpExt: [A-Z]`)},
	{Sockstat, regexp.MustCompile(`^sockets: used `)},
	{Sockstat6, regexp.MustCompile(`^TCP6: inuse `)},
	{Addresses, regexp.MustCompile(`^[0-9]+: (\S+: <|\S+ +inet6? )`)},
	{Log, regexp.MustCompile(`^(<[0-9]+>)?\[( *[0-9]+\.[0-9]{6}|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]\d [0-9:]{8} \d{4})\] |^\S.* kernel: |_conntrack: table full`)},
	{NetstatSockets, regexp.MustCompile(`^(Active Internet connections|Proto +Recv-Q |(tcp|udp)6? +[0-9]+ +[0-9]+ +\S+:\S+ +\S+:)`)},
	{SSSockets, regexp.MustCompile(`^((Netid +)?State +Recv-Q |((tcp|udp) +)?(ESTAB|LISTEN|SYN-SENT|SYN-RECV|FIN-WAIT-[12]|TIME-WAIT|CLOSE-WAIT|LAST-ACK|CLOSING|UNCONN) +[0-9]+ +[0-9]+ )`)},
	{ProcSockets, regexp.MustCompile(`^( +sl +local_address| +[0-9]+: [0-9A-F]{8,32}:[0-9A-F]{4} )`)},
	{Sysctls, regexp.MustCompile(`^-?(abi|debug|dev|fs|kernel|net|sunrpc|user|vm)[./]\S+ *=`)},
}

func kindOfLine(line string) Kind {
	for _, s := range shapes {
		if s.line.MatchString(line) {
			return s.kind
		}
	}
	if _, err := conntrack.ParseFlow(line); err == nil {
		return TextFlows
	}
	return Unknown
}
