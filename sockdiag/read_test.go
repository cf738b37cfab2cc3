package sockdiag

import (
	"errors"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// readText reads a file of testdata/text. They show one host in four ways,
// captured on 2026-11-21, Linux 6.18, in an empty network namespace: netstat
// 2.10 -natpoe and -anW, ss 6.1 -tanpoemi and -tuwanHOpoemi --tos
// --inet-sockopt, tail -n +1 /proc/net/….
func readText(t testing.TB, name string) []Line {
	t.Helper()
	f, err := os.Open("testdata/text/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readAll(t, f)
}

func readAll(t testing.TB, r io.Reader) (lines []Line) {
	t.Helper()
	for l, err := range ReadLines(r) {
		if err != nil {
			t.Error(err)
			continue
		}
		lines = append(lines, l)
	}
	return lines
}

// told returns what each way of showing a socket tells.
func told(s Socket) Socket {
	var processless Fields
	if s.Has(UnknownOwner) {
		processless = UnknownOwner
	}
	return Socket{
		Protocol: s.Protocol, Family: s.Family, State: s.State, Local: s.Local, Remote: s.Remote,
		RecvQueue: s.RecvQueue, SendQueue: s.SendQueue, AcceptQueue: s.AcceptQueue,
		UID: s.UID, Inode: s.Inode, RawProtocol: s.RawProtocol, Fields: processless,
	}
}

// TestReadLinesAgree compares what four tools and tables show of the same
// sockets.
func TestReadLinesAgree(t *testing.T) {
	type ends struct{ local, remote netip.AddrPort }
	all := make(map[ends]Socket)
	for _, l := range readText(t, "ss-oneline.txt") {
		all[ends{l.Local, l.Remote}] = told(l.Socket)
	}
	if len(all) != 14 {
		t.Errorf("ss: %d sockets, want 14", len(all))
	}
	for name, want := range map[string]int{"ss.txt": 10, "proc.txt": 15, "netstat.txt": 25} {
		lines := readText(t, name)
		for _, l := range lines {
			got, w := told(l.Socket), all[ends{l.Local, l.Remote}]
			if l.Protocol == UDPLite { // ss does not show it
				w = Socket{Protocol: UDPLite, Family: IPv6, State: Close, Local: netip.MustParseAddrPort("[::1]:99"),
					Remote: netip.MustParseAddrPort("[::]:0"), Inode: got.Inode, Fields: got.Fields}
			}
			if l.Has(UnknownOwner) {
				w.UID, w.Inode, w.Fields = 0, 0, UnknownOwner
			}
			if l.Protocol == Raw || w.Protocol == Raw { // of which ss shows no inode
				got.Inode, w.Inode, w.Fields, got.Fields = 0, 0, 0, 0
			}
			if got != w {
				t.Errorf("%s: got %+v\nwant %+v", name, got, w)
			}
		}
		if len(lines) != want {
			t.Errorf("%s: %d sockets, want %d", name, len(lines), want)
		}
	}
}

// at returns the socket with a local port, in a state.
func at(t *testing.T, lines []Line, port uint16, state State) Line {
	t.Helper()
	i := slices.IndexFunc(lines, func(l Line) bool { return l.Local.Port() == port && l.State == state })
	if i < 0 {
		t.Fatalf("nothing with port %d in %v", port, state)
	}
	return lines[i]
}

func TestReadProc(t *testing.T) {
	lines := readText(t, "proc.txt")
	client := at(t, lines, 47642, Established)
	if client.Timer != TimerKeepalive || client.Expires.Round(time.Minute) != 2*time.Hour || client.Has(UnknownTimer) {
		t.Errorf("keepalive: %+v", client)
	}
	queue := at(t, lines, 8082, Listen)
	if queue.AcceptQueue != 1 || !queue.Has(UnknownBacklog) || queue.Backlog != 0 {
		t.Errorf("listener: %+v", queue)
	}
	if l := at(t, lines, 8081, CloseWait); !l.Mapped() || l.Family != IPv6 {
		t.Errorf("mapped: %+v", l)
	}
	if l := at(t, lines, 47650, TimeWait); l.Timer != TimerTimeWait || l.Expires < 50*time.Second || l.HasOwner() || l.Has(UnknownOwner) {
		t.Errorf("time wait: %+v", l)
	}
	if l := at(t, lines, 58, Close); l.Protocol != Raw || l.RawProtocol != 58 || !l.Has(FieldRawProtocol) {
		t.Errorf("raw: %+v", l)
	}
}

func TestReadNetstat(t *testing.T) {
	lines := readText(t, "netstat.txt")
	client := at(t, lines, 47642, Established)
	if want := []TextProcess{{"python3", 77, -1}}; !slices.Equal(client.Processes, want) {
		t.Errorf("processes %v, want %v", client.Processes, want)
	}
	if client.Timer != TimerKeepalive || client.Expires.Round(time.Minute) != 2*time.Hour || client.Has(UnknownTimer) {
		t.Errorf("keepalive: %+v", client)
	}
	if l := at(t, lines, 8082, Listen); l.AcceptQueue != 1 || !l.Has(UnknownBacklog) {
		t.Errorf("listener: %+v", l)
	}
}

// TestReadIncident reads the lines of a flood of TIME_WAIT.
func TestReadIncident(t *testing.T) {
	lines := readAll(t, strings.NewReader(`
tcp6 0 0 192.0.2.10:443 89.95.200.5:58936 TIME_WAIT -
tcp6 0 0 192.0.2.10:443 90.0.28.227:5589 TIME_WAIT -
`))
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	want := Socket{
		Protocol: TCP, Family: IPv6, State: TimeWait, Fields: UnknownOwner | UnknownTimer,
		Local: netip.MustParseAddrPort("192.0.2.10:443"), Remote: netip.MustParseAddrPort("89.95.200.5:58936"),
	}
	if got := lines[0].Socket; got != want || !got.Mapped() || lines[0].Processes != nil {
		t.Errorf("got %+v\nwant %+v", lines[0], want)
	}
	if got, want := lines[1].Remote, netip.MustParseAddrPort("90.0.28.227:5589"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReadSS(t *testing.T) {
	for _, name := range []string{"ss.txt", "ss-oneline.txt"} {
		lines := readText(t, name)
		got := at(t, lines, 47642, Established)
		if want := []TextProcess{{"python3", 77, 6}}; !slices.Equal(got.Processes, want) {
			t.Errorf("%s: processes %v, want %v", name, got.Processes, want)
		}
		const has = FieldInfo | FieldMemory | FieldShutdown | FieldDetails
		if !got.Has(has) || got.Has(UnknownTimer) || got.Timer != TimerKeepalive || got.Expires != 119*time.Minute || got.Shutdown != 0 {
			t.Errorf("%s: %+v", name, got)
		}
		i := got.Info
		if !i.Has(InfoBase|InfoWindow) || i.Has(InfoRehash) || i.BytesAcked != 5001 || i.BytesReceived != 10 ||
			i.SndMSS == 0 || i.SndWscale != 10 || i.RcvWscale != 10 || i.Options != OptTimestamps|OptSACK|OptWscale ||
			i.State != Established || i.RTO == 0 || i.RTT == 0 || i.PacingRate == 0 || i.MaxPacingRate != math.MaxUint64 ||
			!i.AppLimited || i.SndSsthresh != InfiniteSsthresh || i.Reordering != 3 {
			t.Errorf("%s: info %+v", name, i)
		}
		if d := got.Details(); d.Congestion != "bbr" || d.BBR.Bandwidth == 0 || d.BBR.PacingGain != 739 {
			t.Errorf("%s: details %+v", name, d)
		}
		if l := at(t, lines, 8081, CloseWait); l.Shutdown != ShutdownReceive || !l.Mapped() {
			t.Errorf("%s: closed by the peer: %+v", name, l)
		}
		if l := at(t, lines, 8082, Listen); l.Device != "lo" || !l.V6Only || l.AcceptQueue != 1 || l.Backlog != 128 ||
			l.Has(UnknownBacklog) || l.Info.Unacked != 0 || l.Cgroup != "/" {
			t.Errorf("%s: listener %+v", name, l)
		}
		if l := at(t, lines, 8081, Listen); l.Family != IPv6 || l.Remote != netip.MustParseAddrPort("[::]:0") || !l.Has(FieldV6Only) || l.V6Only {
			t.Errorf("%s: dual stack %+v", name, l)
		}
	}
	l := at(t, readText(t, "ss-oneline.txt"), 53, Close)
	if l.Protocol != UDP || l.RecvQueue != 832 || l.Memory.RcvAlloc != 832 || !l.Has(FieldTOS|FieldClassID|FieldOptions) ||
		l.Options != OptionMulticastLoop|OptionMulticastAll {
		t.Errorf("udp: %+v", l)
	}
}

// TestReadSSWords reads what the captured lines do not have.
func TestReadSSWords(t *testing.T) {
	const head = "ESTAB 0 0 192.0.2.1%eth0:443 198.51.100.7:4711 "
	for text, ok := range map[string]func(l Line) bool{
		`users:(("tmux: server",pid=7,fd=5),("a),(b",pid=8,fd=6)) uid:33`: func(l Line) bool {
			return slices.Equal(l.Processes, []TextProcess{{"tmux: server", 7, 5}, {"a),(b", 8, 6}}) && l.UID == 33 && l.Device == "eth0"
		},
		`users:(("sshd",1234,3))`: func(l Line) bool { return slices.Equal(l.Processes, []TextProcess{{"sshd", 1234, 3}}) },
		"timer:(on,204ms,1)":      func(l Line) bool { return l.Expires == 204*time.Millisecond && l.Retransmits == 1 },
		"timer:(on,1.204ms,1)":    func(l Line) bool { return l.Expires == 1204*time.Millisecond },
		"timer:(persist,,3)":      func(l Line) bool { return l.Timer == TimerProbe && l.Expires == 0 && l.Retransmits == 3 },
		"timer:(keepalive,1min30sec,0)": func(l Line) bool {
			return l.Expires == 90*time.Second && !l.Has(UnknownTimer)
		},
		"timer:(unknown,1sec,0)": func(l Line) bool { return l.Has(UnknownTimer) && l.Expires == 0 },
		"ino:5 sk:1f fwmark:0x2a cgroup:unreachable:1b": func(l Line) bool {
			return l.Inode == 5 && l.Cookie == 31 && l.Mark == 42 && l.CgroupID == 27 && l.Has(FieldMark|FieldCgroup) && !l.Has(UnknownOwner)
		},
		"cubic wscale:7,8 rto:204 rtt:0.05/0.02 retrans:1/3 busy:12ms rwnd_limited:3ms(25.0%) reordering:5 ssthresh:7": func(l Line) bool {
			i := l.Info
			return l.Details().Congestion == "cubic" && i.RTT == 50*time.Microsecond && i.RTTVar == 20*time.Microsecond &&
				i.Retrans == 1 && i.TotalRetrans == 3 && i.BusyTime == 12*time.Millisecond && i.RwndLimited == 3*time.Millisecond &&
				i.Fields == InfoLimits<<1-1 && i.Reordering == 5 && i.SndSsthresh == 7 && i.SndWscale == 7 && i.RcvWscale == 8
		},
		"rto:0.2 pacing_rate 1.2Gbps/8Mbps delivery_rate 80Kbps": func(l Line) bool {
			return l.Info.PacingRate == 150e6 && l.Info.MaxPacingRate == 1e6 && l.Info.DeliveryRate == 1e4
		},
		"dctcp mss:1 dctcp:(ce_state:1,alpha:2,ab_ecn:3,ab_tot:4)": func(l Line) bool {
			return l.Details().DCTCP == DCTCPInfo{true, 1, 2, 3, 4}
		},
		"cubic mss:1448 tcp-ulp-mptcp flags:Mmec token:0000(id:0)/8f2b(id:1) seq:1 later:(x) something": func(l Line) bool {
			return l.Details().ULP == "mptcp" && l.Details().MPTCP == SubflowInfo{LocalToken: 0x8f2b, LocalID: 1}
		},
		"": func(l Line) bool { return !l.Has(FieldInfo) && l.Fields == UnknownOwner|UnknownTimer },
	} {
		for _, sep := range []string{"", "\n\t "} {
			lines := readAll(t, strings.NewReader(head+sep+text+"\nLISTEN 0 5 *:1 *:*\n"))
			if len(lines) != 2 || !ok(lines[0]) || lines[1].Local.Port() != 1 {
				t.Errorf("%q: %+v", sep+text, lines)
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	const tcp = "tcp 0 0 192.0.2.1:80 "
	for text, want := range map[string]string{
		"what is this":                                           `line 1, column 1: "what": is no state`,
		"0 0 192.0.2.1:80 192.0.2.2:90":                          `line 1, column 1: "0": is no state: ss leaves it out when asked for one alone`,
		"\tcubic":                                                `line 1, column 2: "cubic": continues no socket's line`,
		tcp + "192.0.2.2:http TIME_WAIT":                         `line 1, column 22: "192.0.2.2:http": its port is no number (ss -n, netstat -n)`,
		tcp + "example.org:80 TIME_WAIT":                         `line 1, column 22: "example.org:80": is no address: a name, or cut short (ss -n, netstat -nW)`,
		tcp + "::1:80 TIME_WAIT":                                 `line 1, column 22: "::1:80": is no address of IPv4`,
		tcp + "192.0.2.2:80":                                     `line 1, column 34: is no state`,
		tcp + "192.0.2.2:80 LISTEN www-data 17":                  `line 1, column 42: "www-data": is no user's number (netstat -n)`,
		tcp + "192.0.2.2:80 LISTEN what":                         `line 1, column 42: "what": is no process`,
		tcp + "192.0.2.2:80 LISTEN on (a/0/0)":                   `line 1, column 45: "(a/0/0)": is no timer's value`,
		"tcp6 0 0 ::1:80 2001:db8::1234:5678:443 TIME_WAIT":      `line 1, column 17: "2001:db8::1234:5678:443": may be cut short (netstat -W)`,
		"ESTAB 0 0 1.2.3.4:5":                                    `line 1, column 20: is no address and port`,
		"ESTAB 0 x 1.2.3.4:5 1.2.3.4:6":                          `line 1, column 9: "x": is no number of 32 bits`,
		"ESTAB 0 0 1.2.3.4:5 1.2.3.4:6\n\tmss:x":                 `line 2, column 6: "x": is no number of 32 bits`,
		"ESTAB 0 0 1.2.3.4:5 1.2.3.4:6 timer:(on,x,0)":           `line 1, column 41: "x": is no time`,
		`ESTAB 0 0 1.2.3.4:5 1.2.3.4:6 users:(("a",pid=x,fd=1))`: `line 1, column 38: "(\"a\",pid=x,fd=1))": is no process`,
		"0: 0100007F:0050 0100007:0050 01":                       `line 1, column 18: "0100007:0050": is no address in hexadecimal`,
		"0: 0100007F:0050 00000000:0050 0F 0:0 0:0 0 0 0 0":      `line 1, column 32: "0F": is no state`,
	} {
		var got []error
		var good int
		for l, err := range ReadLines(strings.NewReader(text + "\ntcp 0 0 1.2.3.4:5 1.2.3.4:6 CLOSE_WAIT -\n")) {
			var perr *ParseError
			switch {
			case err == nil && l.State == CloseWait:
				good++
			case !errors.As(err, &perr) || l.Local.IsValid() || l.Fields != 0:
				t.Errorf("%q: %+v, %v", text, l, err)
			default:
				got = append(got, err)
			}
		}
		if len(got) != 1 || got[0].Error() != "sockdiag: "+want || good != 1 {
			t.Errorf("%q: %v, %d good\nwant %s", text, got, good, want)
		}
	}
}

// TestReadBroken gives the reader's error last, after what was whole.
func TestReadBroken(t *testing.T) {
	text := "ESTAB 0 0 1.2.3.4:5 1.2.3.4:6\n"
	for name, r := range map[string]io.Reader{
		"reader": io.MultiReader(strings.NewReader(text), iotest.ErrReader(io.ErrClosedPipe)),
		"long":   strings.NewReader(text + strings.Repeat("x", maxLine+1)),
	} {
		n, last := 0, error(nil)
		for s, err := range ReadSockets(r) {
			n, last = n+1, err
			if err == nil && s.Local.Port() != 5 {
				t.Errorf("%s: %v", name, s)
			}
		}
		if n != 2 || last == nil || !strings.HasPrefix(last.Error(), "sockdiag: line 2: ") {
			t.Errorf("%s: %d, %v", name, n, last)
		}
	}
	for range ReadSockets(strings.NewReader(text + text)) {
		break
	}
}

// TestReadWide takes addresses of the length of cut ones once one was longer.
func TestReadWide(t *testing.T) {
	lines := readAll(t, strings.NewReader("tcp6 0 0 2001:db8:11:2:3:4:5:6:80 2001:db8::1234:5678:443 TIME_WAIT\n"))
	if len(lines) != 1 || lines[0].Remote != netip.MustParseAddrPort("[2001:db8::1234:5678]:443") {
		t.Errorf("%+v", lines)
	}
}

// FuzzReadLines asserts that no text makes ReadLines panic, that an error
// comes with the zero Line, and that what was read is read again from its line.
func FuzzReadLines(f *testing.F) {
	for _, name := range []string{"netstat.txt", "ss.txt", "ss-oneline.txt", "proc.txt"} {
		b, err := os.ReadFile("testdata/text/" + name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(strings.ReplaceAll(string(b), "\n\t", "\r\t")) {
			f.Add(strings.ReplaceAll(line, "\r", "\n"))
		}
	}
	again := func(t *testing.T, s Socket) Socket {
		line := string(s.Append(nil, allLayouts))
		for back, err := range ReadSockets(strings.NewReader(line)) {
			if err != nil {
				t.Fatalf("%s\n%v", line, err)
			}
			return back
		}
		t.Fatalf("%s: nothing", line)
		return s
	}
	f.Fuzz(func(t *testing.T, text string) {
		for l, err := range ReadLines(strings.NewReader(text)) {
			if err != nil {
				if l.Local.IsValid() || l.Fields != 0 || l.Processes != nil {
					t.Errorf("error %v with %+v", err, l)
				}
				continue
			}
			once := again(t, l.Socket)
			if twice := again(t, once); twice != once {
				t.Errorf("%s\n%+v\nagain %+v", once, once.Info, twice.Info)
			}
		}
	})
}
