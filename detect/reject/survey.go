package reject

import (
	"context"
	"slices"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// survey is what one reading of the whole table tells of flows that cannot be
// asked for one by one: entries in zones, and control connections.
type survey struct {
	at, next time.Time // when it was begun, and when another may be
	whole    bool      // nothing was left out
	zoned    map[flowKey]*conntrack.Flow
	controls map[[2]flowKey]*conntrack.Flow // by their hosts
}

const (
	// surveyShare is the part of the time that is not spent reading the table.
	surveyShare = 50
	surveyAge   = 100 * time.Millisecond
	surveyMax   = 8192 // entries kept of either kind
)

// around finds what else the table holds for packets that such entries can
// explain. What is not found by a survey older than the packet stays NotLooked.
func (l *looker) around(ctx context.Context, seen []sighting, results []findings) {
	now := time.Now()
	wanted := slices.ContainsFunc(results, func(f findings) bool { return !f.hurried })
	if wanted && !now.Before(l.survey.next) {
		l.survey = l.read(ctx, now)
	}
	for i := range results {
		if f := &results[i]; !f.hurried {
			l.survey.tell(&seen[i], f, !l.survey.at.Before(now.Add(-surveyAge)))
		}
	}
}

// read surveys the table.
func (l *looker) read(ctx context.Context, now time.Time) survey {
	s := survey{
		at: now, whole: true,
		zoned: make(map[flowKey]*conntrack.Flow), controls: make(map[[2]flowKey]*conntrack.Flow),
	}
	for f, err := range l.ct.All(ctx, nil) {
		if err != nil {
			s.whole = false
			break
		}
		s.add(&f)
	}
	s.next = now.Add(max(surveyAge, surveyShare*time.Since(now)))
	return s
}

func (s *survey) add(f *conntrack.Flow) {
	if (len(s.zoned) >= 2*surveyMax || len(s.controls) >= surveyMax) && s.keeps(f) {
		s.whole = false
		return
	}
	if inZone(f) {
		kept := *f
		s.zoned[keyOfTuple(&f.Original)], s.zoned[keyOfTuple(&f.Reply)] = &kept, &kept
	}
	if isControl(f) {
		kept := *f
		s.controls[hosts(&f.Original)] = &kept
	}
}

func (s *survey) keeps(f *conntrack.Flow) bool { return inZone(f) || isControl(f) }

func inZone(f *conntrack.Flow) bool { return f.Zone != 0 || f.OriginalZone != 0 || f.ReplyZone != 0 }

// isControl reports a connection that announces others and has no helper that
// reads them: to the ports of the kernel's helpers.
func isControl(f *conntrack.Flow) bool {
	ports := controlPorts[f.Original.Proto]
	return slices.Contains(ports, f.Original.DstPort) && f.Details().Helper == ""
}

// controlPorts are those of nf_conntrack_ftp, _h323, _pptp, _sip, _sane, _irc,
// of RTSP, and of nf_conntrack_tftp, _amanda, _netbios_ns and _snmp.
var controlPorts = map[conntrack.Proto][]uint16{
	conntrack.ProtoTCP: {21, 554, 1720, 1723, 5060, 6566, 6667},
	conntrack.ProtoUDP: {69, 137, 161, 1719, 5060, 10080},
}

// hosts is the pair of a tuple's addresses, in either direction.
func hosts(t *conntrack.Tuple) [2]flowKey {
	a := flowKey{src: t.Src.As16(), v4: t.Src.Is4()}
	b := flowKey{src: t.Dst.As16(), v4: t.Dst.Is4()}
	if slices.Compare(a.src[:], b.src[:]) > 0 {
		a, b = b, a
	}
	return [2]flowKey{a, b}
}

// tell gives a packet what the survey found. current tells that the packet is
// not younger.
func (s *survey) tell(seen *sighting, f *findings, current bool) {
	if s.at.IsZero() {
		return
	}
	looked := finding[conntrack.Flow]{}
	if s.whole && current {
		looked = absent[conntrack.Flow]()
	}
	tuple := PacketTuple(seen.packet)
	opposite := tuple.Invert()
	f.elsewhere, f.control = looked, looked
	if e := s.zoned[keyOfTuple(&tuple)]; e != nil {
		f.elsewhere = found(e)
	} else if e := s.zoned[keyOfTuple(&opposite)]; e != nil {
		f.elsewhere = found(e)
	}
	if e := s.controls[hosts(&tuple)]; e != nil && e.Original != tuple && e.Reply != tuple && seen.packet.Have.Has(packet.HavePorts) {
		f.control = found(e)
	}
}
