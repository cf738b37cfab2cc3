package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/reject"
)

// view shows verdicts.
type view struct {
	out  io.Writer
	json *json.Encoder // nil writes text
	top  int           // flows shown; 0 is all, and on a terminal those refused last
	live bool          // out is a terminal

	mu    sync.Mutex
	flows map[conntrack.Tuple]reject.Verdict
	drawn int  // lines on the terminal
	soon  bool // it will be drawn
}

const (
	screen   = 20      // lines used of a terminal
	maxFlows = 1 << 14 // half of them are then forgotten, those refused longest ago
	pause    = 100 * time.Millisecond
)

func (v *view) show(verdict reject.Verdict) {
	switch {
	case v.json != nil:
		_ = v.json.Encode(verdict) // a closed pipe ends the program by SIGPIPE
	case !v.live && v.top == 0:
		line(v.out, verdict)
	default:
		v.keep(verdict)
	}
}

func (v *view) keep(verdict reject.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.flows == nil {
		v.flows = make(map[conntrack.Tuple]reject.Verdict)
	}
	v.flows[verdict.Flow] = verdict
	if len(v.flows) > maxFlows {
		for _, old := range v.list(byTime)[maxFlows/2:] {
			delete(v.flows, old.Flow)
		}
	}
	if v.live && !v.soon {
		v.soon = true
		time.AfterFunc(pause, v.draw)
	}
}

func byTime(a, b reject.Verdict) int  { return b.Last.Compare(a.Last) }
func byCount(a, b reject.Verdict) int { return b.Count - a.Count }

func (v *view) list(order func(a, b reject.Verdict) int) []reject.Verdict {
	all := make([]reject.Verdict, 0, len(v.flows))
	for _, f := range v.flows {
		all = append(all, f)
	}
	slices.SortFunc(all, order)
	return all
}

// lines writes the flows that are shown, and returns how many.
func (v *view) lines(w io.Writer) int {
	order, most := byTime, screen
	if v.top > 0 {
		order, most = byCount, v.top
	}
	all := v.list(order)
	all = all[:min(len(all), most)]
	for _, f := range all {
		line(w, f)
	}
	return len(all)
}

// draw writes over what it has written before: up, delete to the end, and
// without line breaks where the terminal ends.
func (v *view) draw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.soon = false
	var b bytes.Buffer
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	b.WriteString("\x1b[J\x1b[?7l")
	v.drawn = v.lines(&b)
	b.WriteString("\x1b[?7h")
	_, _ = v.out.Write(b.Bytes()) // a terminal that is gone ends the program by SIGHUP
}

// end shows what was not shown yet.
func (v *view) end() {
	switch {
	case v.live:
		v.draw()
	case v.top > 0:
		v.lines(v.out)
	}
}
