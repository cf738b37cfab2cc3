package sockdiag

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
)

// ssVolatile is what passes with time, and what a Socket does not have: the
// path of the cgroup and the name of the interface.
var ssVolatile = regexp.MustCompile(` (?:lastsnd|lastrcv|lastack):\d+| cgroup:\S+|,[^,]*,(\d+\))|` +
	`( busy| rwnd_limited| sndbuf_limited):\d+ms(?:\(\d+\.\d%\))?`)

// ssCompared writes a line of ss with single blanks, and without what cannot be
// compared.
func ssCompared(line string) string {
	line = strings.ReplaceAll(" "+strings.Join(strings.Fields(line), " "), "%lo:", "%if1:")
	return ssVolatile.ReplaceAllString(line, "$1$2")
}

// TestTextAgainstSS compares what Append writes with ss, word for word, and
// what is read from ss's lines with the kernel's rows.
func TestTextAgainstSS(t *testing.T) {
	h := newScene(t)
	c := dialHost(t, h)
	lab.Tool(t, "ss")
	q := Query{Info: true, Memory: true, Congestion: true, TOS: true}
	var wrong []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		rows := make(map[uint64]Socket)
		for _, s := range snapshot(t, c, q) {
			rows[s.Cookie] = s
		}
		out, err := h.Exec(t.Context(), "ss", "-tanOHoemi", "--tos", "--inet-sockopt")
		if err != nil {
			t.Skipf("ss of another age: %v", err)
		}
		if wrong = compareText(t, rows, string(out)); wrong == nil {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

func compareText(t *testing.T, rows map[uint64]Socket, out string) (wrong []string) {
	t.Helper()
	const all = LayoutTimer | LayoutExtended | LayoutTOS | LayoutOptions | LayoutMemory | LayoutInfo
	n := 0
	for line := range strings.Lines(out) {
		for l, err := range ReadLines(strings.NewReader(line)) {
			if err != nil {
				t.Fatalf("%s\n%v", line, err)
			}
			n++
			row := rows[l.Cookie]
			got, want := ssCompared(string(row.Append(nil, all))), ssCompared(line)
			if got != want {
				wrong = append(wrong, "got "+got, "ss  "+want)
			}
			if back := ssCompared(string(l.Append(nil, all))); back != strings.ReplaceAll(want, "%if1:", ":") {
				wrong = append(wrong, "read "+back, "of   "+want)
			}
		}
	}
	if n != len(rows) || n < 15 {
		wrong = append(wrong, "some rows are missing")
	}
	return wrong
}

// TestReadSame reads the kernel's own tables and those of the tools, and
// compares with its rows.
func TestReadSame(t *testing.T) {
	h := newScene(t)
	c := dialHost(t, h)
	for name, tool := range map[string][]string{
		"proc":    {"cat", "/proc/net/tcp", "/proc/net/tcp6"},
		"netstat": {"netstat", "-natWeo"},
		"ss":      {"ss", "-tanoe"},
	} {
		t.Run(name, func(t *testing.T) { readSame(t, h, c, tool) })
	}
}

func readSame(t *testing.T, h *lab.Host, c *Conn, tool []string) {
	if path := lab.Tool(t, tool[0]); tool[0] == "netstat" {
		if out, _ := exec.Command(path, "--version").CombinedOutput(); !strings.Contains(string(out), "net-tools") {
			t.Skipf("%s is not that of net-tools", path)
		}
	}
	var wrong []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		rows := make(map[Socket]int)
		for _, s := range snapshot(t, c, Query{}) {
			rows[common(s)]++
		}
		out, err := h.Exec(t.Context(), tool[0], tool[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if wrong = compareRead(t, rows, string(out)); wrong == nil {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

// common is what every format tells of every socket: the kernel's tables
// have the user of a socket that has no owner.
func common(s Socket) Socket {
	s = Socket{
		Protocol: s.Protocol, Family: s.Family, State: s.State, Local: s.Local, Remote: s.Remote, UID: s.UID,
		RecvQueue: s.RecvQueue, SendQueue: s.SendQueue, AcceptQueue: s.AcceptQueue, Inode: s.Inode,
	}
	if !s.HasOwner() {
		s.UID = 0
	}
	return s
}

func compareRead(t *testing.T, rows map[Socket]int, out string) (wrong []string) {
	t.Helper()
	for s, err := range ReadSockets(strings.NewReader(out)) {
		if err != nil {
			t.Fatal(err)
		}
		if same := common(s); rows[same] > 0 {
			rows[same]--
		} else {
			wrong = append(wrong, "read "+same.String())
		}
	}
	for s, n := range rows {
		if n > 0 {
			wrong = append(wrong, "not read "+s.String())
		}
	}
	return wrong
}
