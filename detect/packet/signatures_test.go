package packet

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// recorded are the packets of one connection in testdata/dir, in order.
func recorded(t testing.TB, dir string) (all [][]byte) {
	t.Helper()
	dir = filepath.Join(captures, dir)
	for _, name := range fixture.Names(t, dir) {
		all = append(all, fixture.Read(t, filepath.Join(dir, name+".hex")))
	}
	return all
}

// TestRecordedResets reads the packets of the incident as the kernel logged
// them, a second apart.
func TestRecordedResets(t *testing.T) {
	for _, dir := range []string{"psh-rst-v4", "psh-rst-v6"} {
		track, beats := NewResetTracker(4), NewHeartbeatTracker(4)
		var told []PushedReset
		var anomalies []Anomaly
		for i, b := range recorded(t, dir) {
			p := must(Decode(b))
			if a, sure := p.Anomaly(b); a != 0 && sure == Certain {
				anomalies = append(anomalies, a)
			}
			if r, ok := track.Packet(t0.Add(time.Duration(i)*time.Second), p.Header); ok {
				told = append(told, r)
			}
			beats.Packet(p.Header, b, func(f HeartbeatFinding) { t.Errorf("%s: %v", dir, f) })
		}
		if len(told) != 2 || told[0].Confidence != Possible || told[1].Confidence != Certain || told[1].Answer != RST|ACK ||
			told[1].Ack != 1 || told[1].Want != 805 || told[1].TTL != 64 || told[1].After != time.Second {
			t.Errorf("%s: %v", dir, told)
		}
		if !slices.Equal(anomalies, []Anomaly{PSHRST}) {
			t.Errorf("%s: %v", dir, anomalies)
		}
	}
}

func TestRecordedHeartbeats(t *testing.T) {
	for dir, want := range map[string][]HeartbeatFault{"heartbleed-v4": {Overread, Leak}, "heartbeat-v4": nil} {
		track := NewHeartbeatTracker(4)
		var got []HeartbeatFault
		for _, b := range recorded(t, dir) {
			track.Packet(must(Decode(b)).Header, b, func(f HeartbeatFinding) {
				if got = append(got, f.Fault); f.Confidence != Certain || f.Extra != 1<<14 {
					t.Errorf("%s: %+v", dir, f)
				}
			})
		}
		lost := uint64(len(want) / 2) // the second record of the leak begins behind the capture length
		if !slices.Equal(got, want) || track.Lost() != lost {
			t.Errorf("%s: %v, lost %d", dir, got, track.Lost())
		}
	}
}

// TestRecordedTcpdump compares the recorded packets, and those with odd flags,
// with tcpdump.
func TestRecordedTcpdump(t *testing.T) {
	tool, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("reference tool: ", err)
	}
	all := slices.Concat(recorded(t, "psh-rst-v4"), recorded(t, "psh-rst-v6"), recorded(t, "heartbleed-v4"))
	for _, f := range []TCPFlags{SYN | FIN, SYN | RST, RST | FIN | ACK, PSH | RST, FIN, FIN | PSH | URG, SYN | ECE | CWR} {
		all = append(all, v4(ProtoTCP, with(tcpSYN, 13, byte(f))))
	}
	for _, b := range all {
		h := must(Decode(b)).Header
		if h.Flags == ACK && h.DataLen == 0 {
			continue // tcpdump leaves their sequence number out
		}
		compare(t, tool, b, h)
	}
}
