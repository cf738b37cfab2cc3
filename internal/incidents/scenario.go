package incidents

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/detect/reject"
	"github.com/connsleuth/connsleuth/internal/lab"
)

// Scenario is one incident.
type Scenario struct {
	Name string
	// Title says what happens, in a line.
	Title string

	play func(*stage) error
}

// Scenarios are all incidents, in the order in which they are told.
var Scenarios = []Scenario{
	{"forgotten", "a live connection is idle for longer than the tracker remembers", playForgotten},
	{"ghost", "a late answer raises a ghost entry, which blocks the reuse of a port", playGhost},
	{"late-reset", "the ghost that never was: with a longer close_wait the late answer draws a RST", playLateReset},
	{"table-full", "the connections of one source fill the table", playTableFull},
	{"out-of-window", "a segment far outside the window the tracker has seen", playOutOfWindow},
	{"invalid-reset", "a RST that is older than what was acknowledged", playInvalidReset},
	{"invalid-flags", "a scanner's segment with SYN and FIN", playInvalidFlags},
	{"damaged", "a segment with a wrong checksum", playDamaged},
	{"wrong-zone", "the two directions of a connection are tracked in different zones", playWrongZone},
	{"untracked-return", "the answers of a connection are exempt from tracking", playUntrackedReturn},
	{"untracked", "a port is exempt from tracking, and no rule accepts that", playUntracked},
	{"asymmetric", "a router sees only one direction of a connection", playAsymmetric},
	{"rule-order", "a reject stands before the rule for known connections", playRuleOrder},
	{"not-allowed", "a service runs, and no rule lets anyone in", playNotAllowed},
	{"no-service", "nobody listens where somebody connects", playNoService},
	{"by-peer", "the client knows no more than the peer's ICMP error", playByPeer},
	{"on-path", "a router between client and server refuses", playOnPath},
	{"ftp-passive", "a server's firewall does not know the data connection of FTP", playPassiveFTP},
	{"ftp-active", "a client's firewall does not know the data connection of FTP", playActiveFTP},
	{"gateway", "a gateway refuses what it has translated", playGateway},
	{"not-translated", "a gateway forwards an INVALID packet as it is", playNotTranslated},
	{"deleted", "somebody deletes the entry of a live connection", playDeleted},
	{"tracked-late", "the firewall starts when the connection is made already", playTrackedLate},
	{"port-reuse", "a port is used again before the other side's connection from it is over", playPortReuse},
	{"backscatter", "the answer to a SYN that somebody else has forged", playBackscatter},
	{"syn-missed", "a SYN is answered when the tracker has forgotten it", playSynMissed},
	{"late-datagram", "a UDP answer comes when the tracker has forgotten the question", playLateDatagram},
	{"rate-limited", "most refusals are not told, for ICMP errors have a rate limit", playRateLimited},
	{"nat-clash", "source NAT has one port for two connections", playNATClash},
	{"reverse-path", "packets come in by another link than the one by which answers leave", playReversePath},
	{"accept-queue", "a program accepts no connections, and its queue is full", playAcceptQueue},
	{"psh-rst", "requests with PSH and RST set, and a rule that drops RST: connections hang", playPshRst},
	{"idle-flood", "one source holds connections that carry nothing", playIdleFlood},
	{"syn-flood", "somebody begins connections under an address that does not answer", playSynFlood},
	{"heartbleed", "heartbeats that claim more than they have, and answers that leak", playHeartbleed},
}

// Find returns the scenario of a name.
func Find(name string) (Scenario, error) {
	for _, s := range Scenarios {
		if s.Name == name {
			return s, nil
		}
	}
	return Scenario{}, fmt.Errorf("no scenario %q", name)
}

// Step is a part of an incident.
type Step string

// The steps, in their order.
const (
	Reproduce Step = "reproduce"
	Detect    Step = "detect"
	Explain   Step = "explain"
	Remedy    Step = "remedy"
)

// Report is one thing to tell of an incident while it plays.
type Report struct {
	Scenario string
	At       time.Duration // since the scenario began
	Kind     Kind
	Step     Step // of a Result
	OK       bool // of a Result: verified on the kernel
	Text     string
	// Verdict is that of an Explain result.
	Verdict *reject.Verdict
}

// Kind is what a Report is.
type Kind uint8

// The kinds of reports.
const (
	Set    Kind = iota // a setting or a rule was made
	Seen               // something was seen happening
	Wait               // it waits; Text says for what
	Result             // a step is done
)

// errFailed is the error of a scenario with a step that failed; the Results
// tell which.
var errFailed = errors.New("a step was not verified")

// Run plays a scenario in a network of its own and tells what happens to
// report, from the same goroutine. It returns an error if a step could not be
// verified, a *lab.Forbidden where the machine allows no namespaces, and
// errors.ErrUnsupported where it cannot stage this one. It takes some 15 s at
// most.
func (s Scenario) Run(ctx context.Context, ipv6 bool, report func(Report)) error {
	return s.onStage(ctx, ipv6, report, s.whole)
}

// whole plays, and wants all four steps verified.
func (s Scenario) whole(st *stage) error {
	if err := s.act(st); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if st.failed || st.done != 4 {
		return fmt.Errorf("%s: %w", s.Name, errFailed)
	}
	return nil
}

// onStage has f play on a stage that is taken down afterwards.
func (s Scenario) onStage(ctx context.Context, ipv6 bool, report func(Report), f func(*stage) error) (err error) {
	network, err := lab.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	st := &stage{ctx: ctx, scenario: s.Name, report: report, start: time.Now()}
	defer func() { err = errors.Join(err, st.close(cancel)) }()
	if err := st.build(network, ipv6); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return f(st)
}

// Play plays scenarios side by side, each in a network of its own and at most
// atOnce at a time, and tells of them in their order. It returns the error of
// each.
func Play(ctx context.Context, scenarios []Scenario, ipv6 bool, atOnce int, report func(Report)) []error {
	errs := make([]error, len(scenarios))
	reports := make([]chan Report, len(scenarios))
	for i := range reports {
		reports[i] = make(chan Report, 1<<10) // more than any tells
	}
	turns := make(chan struct{}, atOnce)
	go func() {
		for i, s := range scenarios {
			turns <- struct{}{}
			go func() {
				errs[i] = s.Run(ctx, ipv6, func(r Report) { reports[i] <- r })
				close(reports[i])
				<-turns
			}()
		}
	}()
	for _, of := range reports {
		for r := range of {
			report(r)
		}
	}
	return errs
}

// act plays, and makes what ended it in must its error.
func (s Scenario) act(st *stage) (err error) {
	defer func() {
		switch ended := recover().(type) {
		case nil:
		case stop:
			err = ended.err
		default:
			panic(ended)
		}
	}()
	return s.play(st)
}
