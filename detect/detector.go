package detect

import (
	"cmp"
	"iter"
	"slices"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Detector finds one kind of trouble. Those of this package are structs of
// options, whose zero values are the thresholds of the incidents that taught
// them.
type Detector interface {
	// Name is what Finding.Detector says.
	Name() string
	// Look begins a pass over the rows of a host. What h holds beside rows may
	// be used from the start.
	Look(h *Host) Look
}

// Look is one pass of a detector. A function that is nil is not called. The
// rows are lent: what is to stay is copied.
type Look struct {
	// Socket is given each socket, before all flows.
	Socket func(*sockdiag.Socket)
	// Flow is given each flow.
	Flow func(*conntrack.Flow)
	// Findings is called last.
	Findings func() []Finding
}

// Find has the detectors look at the rows that a Host holds. The worst findings
// come first.
func Find(h Host, detectors ...Detector) []Finding {
	looks := begin(&h, detectors)
	for i := range h.Sockets {
		looks.socket(&h.Sockets[i])
	}
	for i := range h.Flows {
		looks.flow(&h.Flows[i])
	}
	return looks.findings()
}

// Scan is Find over rows that are read as they come, in memory that does not
// grow with them but by what the detectors keep. The rows that h holds are not
// looked at. Either sequence may be nil. Reading stops at the first error,
// which is returned along with what was found until then.
func Scan(h Host, sockets iter.Seq2[sockdiag.Socket, error], flows iter.Seq2[conntrack.Flow, error], detectors ...Detector) ([]Finding, error) {
	looks := begin(&h, detectors)
	err := each(sockets, looks.socket)
	if err == nil {
		err = each(flows, looks.flow)
	}
	return looks.findings(), err
}

func each[T any](rows iter.Seq2[T, error], look func(*T)) error {
	if rows == nil {
		return nil
	}
	var lent T // one for all
	for row, err := range rows {
		if err != nil {
			return err
		}
		lent = row
		look(&lent)
	}
	return nil
}

// looks are those of several detectors.
type looks struct {
	sockets []func(*sockdiag.Socket)
	flows   []func(*conntrack.Flow)
	ends    []func() []Finding
}

func begin(h *Host, detectors []Detector) *looks {
	var all looks
	for _, d := range detectors {
		look := d.Look(h)
		if look.Socket != nil {
			all.sockets = append(all.sockets, look.Socket)
		}
		if look.Flow != nil {
			all.flows = append(all.flows, look.Flow)
		}
		if look.Findings != nil {
			all.ends = append(all.ends, look.Findings)
		}
	}
	return &all
}

func (l *looks) socket(s *sockdiag.Socket) {
	for _, look := range l.sockets {
		look(s)
	}
}

func (l *looks) flow(f *conntrack.Flow) {
	for _, look := range l.flows {
		look(f)
	}
}

// findings are those of all, the worst and surest first.
func (l *looks) findings() []Finding {
	var found []Finding
	for _, end := range l.ends {
		found = append(found, end()...)
	}
	found = once(found)
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(b.Confidence, a.Confidence))
	})
	return found
}
