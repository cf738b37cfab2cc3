// Command ghosts sweeps ghost entries away: ESTABLISHED, [UNREPLIED], and of no
// socket, they make this host refuse the next connection from the same port. By
// default it only says what it would delete.
//
//	go run ./examples/ghosts [-apply] [-every TIME] [-rounds N] [-json]
//
// It takes CAP_NET_ADMIN. An entry is deleted by its tuple and its id: one that
// took its place meanwhile is left alone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/internal/bouncer"
	"github.com/connsleuth/connsleuth/sockdiag"
)

func main() {
	var act bouncer.Act
	act.Register(flag.CommandLine)
	var loop bouncer.Loop
	loop.Register(flag.CommandLine, 0)
	bouncer.Main("deletes ghost entries: they block the reuse of a port.", func(ctx context.Context) error {
		ct, err := conntrack.Dial(nil)
		if err != nil {
			return err
		}
		defer ct.Close()
		diag, err := sockdiag.Dial(nil)
		if err != nil {
			return err
		}
		defer diag.Close()
		s := &sweeper{act: act, ct: ct, diag: diag}
		return loop.Run(ctx, s.sweep)
	})
}

// sweeper looks for ghosts, and deletes them.
type sweeper struct {
	act  bouncer.Act
	ct   *conntrack.Conn
	diag *sockdiag.Conn
}

func (s *sweeper) sweep(ctx context.Context, now time.Time) error {
	// Sockets are read before flows: a connection that is made meanwhile has a
	// socket, and an answer. Settings are what the findings explain it with.
	settings, err := conntrack.ReadSettings(os.DirFS("/proc"))
	if err != nil {
		return err
	}
	host := detect.Host{Now: now, Settings: settings}
	findings, err := detect.Scan(host, s.diag.All(ctx, sockdiag.Query{}), s.ct.All(ctx, nil), detect.Ghosts{})
	if err != nil {
		return err
	}
	var flows []conntrack.Flow
	var of []detect.Finding // each of flows
	for _, f := range findings {
		if len(f.Evidence.Flows) == 0 { // those beyond the first thousand: the next sweep's
			fmt.Fprintln(os.Stderr, "ghosts:", f)
		}
		for _, flow := range f.Evidence.Flows {
			flows, of = append(flows, flow), append(of, f)
		}
	}
	var told []error
	report, err := s.ct.DeleteAll(ctx, slices.Values(flows), &conntrack.DeleteOptions{
		DryRun: !s.act.Apply,
		Outcome: func(flow conntrack.Flow, done conntrack.DeleteOutcome, err error) {
			told = append(told, s.tell(now, flow, done, err, of[len(told)]))
		},
	})
	if !s.act.JSON {
		fmt.Println("ghosts:", report)
	}
	return errors.Join(err, errors.Join(told...))
}

// line is what became of a ghost.
type line struct {
	Time    time.Time      `json:"time"`
	Action  string         `json:"action"` // would delete, deleted, gone, changed, refused, unknown, skipped
	Subject string         `json:"subject"`
	Cause   string         `json:"cause"`
	Fix     []string       `json:"fix"`
	Flow    conntrack.Flow `json:"flow"`
	Error   string         `json:"error,omitempty"`
}

func (s *sweeper) tell(now time.Time, flow conntrack.Flow, done conntrack.DeleteOutcome, err error, f detect.Finding) error {
	l := line{Time: now.UTC(), Action: done.String(), Subject: f.Subject, Cause: f.Cause, Fix: f.Fix, Flow: flow}
	if err != nil {
		l.Error = err.Error()
	}
	if s.act.JSON {
		return json.NewEncoder(os.Stdout).Encode(l)
	}
	text := fmt.Sprintf("%s: %v", l.Action, f)
	if l.Error != "" {
		text += ": " + l.Error
	}
	_, err = fmt.Println(text)
	return err
}
