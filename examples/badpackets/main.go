// Command badpackets tells of the packets of an NFLOG group that no TCP in good
// health sends: flag anomalies, data with PSH|RST that a rule drops, the
// heartbeats of Heartbleed; when they are first seen and with counts at the
// end, and then of the connections that hang. It needs CAP_NET_ADMIN, and
//
//	nft 'table inet badpackets {
//		chain in { type filter hook input priority -150; meta l4proto tcp log group 50; }
//		chain out { type filter hook output priority -150; meta l4proto tcp log group 50; } }'
//	go run ./examples/badpackets [-group N] [-for DURATION] [-json]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

func main() {
	group := flag.Uint("group", 50, "NFLOG group `N` of the rules")
	duration := flag.Duration("for", 0, "how long to listen; 0 is until interrupted")
	asJSON := flag.Bool("json", false, "write one JSON object a line")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *duration > 0 {
		ctx, stop = context.WithTimeout(ctx, *duration)
		defer stop()
	}
	s := &seen{json: *asJSON, rows: map[key]*row{}, hung: map[netip.Addr]int{},
		resets: packet.NewResetTracker(0), beats: packet.NewHeartbeatTracker(0)}
	if err := errors.Join(s.listen(ctx, *group), s.end()); err != nil {
		fmt.Fprintln(os.Stderr, "badpackets:", err)
		os.Exit(1)
	}
}

// key is a connection and what was seen of it, row what there is to tell.
type key struct {
	Kind string `json:"kind"`
	From string `json:"from"`
	To   string `json:"to,omitempty"`
}

type row struct {
	key
	Count      int    `json:"count"`
	Confidence string `json:"confidence"`
	Text       string `json:"text"`
}

const most = 10000 // rows that are kept

type seen struct {
	json   bool
	rows   map[key]*row
	hung   map[netip.Addr]int // connections that hang, by who sends data with PSH|RST
	missed uint64             // packets and connections that were not looked at
	resets *packet.ResetTracker
	beats  *packet.HeartbeatTracker
}

func (s *seen) listen(ctx context.Context, group uint) error {
	if group > 1<<16-1 {
		return fmt.Errorf("-group %d: want 0 to 65535", group)
	}
	r, err := nflog.Listen(&nflog.Config{Groups: []uint16{uint16(group)}, Snaplen: 2048})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read from
	fmt.Fprintf(os.Stderr, "listening to group %d\n", group)
	for p, err := range r.Packets(ctx) {
		if lost, ok := errors.AsType[*nflog.Lost](err); ok {
			s.missed += lost.Count
		} else if err != nil && ctx.Err() == nil {
			return err
		} else if err == nil {
			s.packet(p.Payload)
		}
	}
	return nil
}

func (s *seen) packet(b []byte) {
	p, err := packet.Decode(b)
	if err != nil {
		s.missed++
		return
	}
	from, to := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
	if a, sure := p.Anomaly(b); a != 0 {
		s.add(from, to, a.String(), sure, fmt.Sprintf("%v > %v: %v (%v): %s", from, to, a, sure, a.Meaning()))
	}
	if r, ok := s.resets.Packet(time.Now(), p.Header); ok && s.add(r.From, r.To, "reset", r.Confidence, r.String()) {
		s.hung[r.From.Addr()] = 0
	}
	s.beats.Packet(p.Header, b, func(f packet.HeartbeatFinding) {
		s.add(f.From, f.To, "heartbeat "+f.Fault.String(), f.Confidence, f.String())
	})
}

// add counts something, and tells it when it is new or surer. It reports
// whether there was room.
func (s *seen) add(from, to netip.AddrPort, kind string, sure packet.Confidence, text string) bool {
	k := key{kind, from.String(), to.String()}
	if s.rows[k] == nil && len(s.rows) == most {
		s.missed++
		return false
	} else if s.rows[k] == nil {
		s.rows[k] = &row{key: k}
	}
	r := s.rows[k]
	r.Count++
	if r.Confidence != sure.String() {
		r.Confidence, r.Text = sure.String(), text
		s.tell(r)
	}
	return true
}

func (s *seen) tell(r *row) {
	if s.json {
		_ = json.NewEncoder(os.Stdout).Encode(r) // a closed pipe ends the program by SIGPIPE
	} else {
		fmt.Printf("%6d  %s\n", r.Count, r.Text)
	}
}

// end tells the counts, what was missed, and which connections hang.
func (s *seen) end() error {
	for _, r := range s.rows {
		if r.Count > 1 {
			s.tell(r)
		}
	}
	if s.missed += s.resets.Forgotten() + s.beats.Forgotten() + s.beats.Lost(); s.missed > 0 {
		fmt.Fprintf(os.Stderr, "not seen: %d packets or connections\n", s.missed)
	}
	return s.hang()
}
