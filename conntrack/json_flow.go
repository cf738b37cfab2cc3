package conntrack

import (
	"strconv"
	"time"
)

// flowJSON is the form of a Flow in JSON. What is absent is a nil pointer, so
// that it stays apart from zero.
type flowJSON struct {
	Original *tupleJSON    `json:"original"`
	Reply    *tupleJSON    `json:"reply"`
	Status   *[]string     `json:"status,omitempty"`
	Timeout  *uint32       `json:"timeout,omitempty"`
	TCP      *tcpJSON      `json:"tcp,omitempty"`
	SCTP     *sctpJSON     `json:"sctp,omitempty"`
	DCCP     *dccpJSON     `json:"dccp,omitempty"`
	Mark     *uint32       `json:"mark,omitempty"`
	Secmark  *uint32       `json:"secmark,omitempty"`
	Secctx   *string       `json:"secctx,omitempty"`
	Zone     *uint16       `json:"zone,omitempty"`
	ID       *uint32       `json:"id,omitempty"`
	Use      *uint32       `json:"use,omitempty"`
	Counters *countersJSON `json:"counters,omitempty"`
	Start    *string       `json:"start,omitempty"`
	Stop     *string       `json:"stop,omitempty"`
	Labels   *[]uint16     `json:"labels,omitempty"` // of bytes it would be a string
	Helper   *string       `json:"helper,omitempty"`
	Master   *tupleJSON    `json:"master,omitempty"`
	SeqAdj   *seqAdjsJSON  `json:"seqadj,omitempty"`
	Synproxy *synproxyJSON `json:"synproxy,omitempty"`
}

type eventJSON struct {
	Type string    `json:"type"`
	At   *string   `json:"at,omitempty"`
	Port uint32    `json:"port,omitempty"`
	Flow *flowJSON `json:"flow"`
}

type tupleJSON struct {
	Src      string  `json:"src,omitempty"`
	Dst      string  `json:"dst,omitempty"`
	Proto    string  `json:"proto"`
	SrcPort  *uint16 `json:"sport,omitempty"`
	DstPort  *uint16 `json:"dport,omitempty"`
	ICMPType *uint8  `json:"type,omitempty"`
	ICMPCode *uint8  `json:"code,omitempty"`
	ICMPID   *uint16 `json:"id,omitempty"`
	Zone     uint16  `json:"zone,omitempty"`
}

type countersJSON struct {
	Original counterJSON `json:"original"`
	Reply    counterJSON `json:"reply"`
}

type counterJSON struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

type tcpJSON struct {
	State         string `json:"state"`
	OriginalFlags uint8  `json:"original_flags"`
	ReplyFlags    uint8  `json:"reply_flags"`
	OriginalScale uint8  `json:"original_scale"`
	ReplyScale    uint8  `json:"reply_scale"`
}

type sctpJSON struct {
	State       string `json:"state"`
	OriginalTag uint32 `json:"original_tag"`
	ReplyTag    uint32 `json:"reply_tag"`
}

type dccpJSON struct {
	State        string `json:"state"`
	Role         uint8  `json:"role"`
	HandshakeSeq uint64 `json:"handshake_seq"`
}

type seqAdjsJSON struct {
	Original seqAdjJSON `json:"original"`
	Reply    seqAdjJSON `json:"reply"`
}

type seqAdjJSON struct {
	Position uint32 `json:"position"`
	Before   int32  `json:"before"`
	After    int32  `json:"after"`
}

type synproxyJSON struct {
	ISN             uint32 `json:"isn"`
	ITS             uint32 `json:"its"`
	TimestampOffset uint32 `json:"tsoff"`
}

func newFlowJSON(f *Flow) (*flowJSON, error) {
	seconds, err := jsonSeconds(f.Timeout)
	if err != nil {
		return nil, err
	}
	j := &flowJSON{
		Original: newTupleJSON(&f.Original, f.OriginalZone),
		Reply:    newTupleJSON(&f.Reply, f.ReplyZone),
		Timeout:  jsonWhen(f.Has(FieldTimeout), seconds),
		Mark:     jsonWhen(f.Has(FieldMark), f.Mark),
		Secmark:  jsonWhen(f.Has(FieldSecmark), f.Secmark),
		Zone:     jsonWhen(f.Has(FieldZone), f.Zone),
		ID:       jsonWhen(f.Has(FieldID), f.ID),
		Use:      jsonWhen(f.Has(FieldUse), f.Use),
		Counters: jsonWhen(f.Has(FieldCounters), countersJSON{counterJSON(f.OriginalCounter), counterJSON(f.ReplyCounter)}),
	}
	if f.Has(FieldStatus) {
		j.Status = new(jsonStatus(f.Status))
	}
	if f.Has(FieldTCP) {
		j.TCP = &tcpJSON{f.TCP.State.String(), f.TCP.OriginalFlags, f.TCP.ReplyFlags, f.TCP.OriginalScale, f.TCP.ReplyScale}
	}
	if f.Has(FieldStart) {
		j.Start = new(jsonInstant(f.Start))
	}
	if f.Has(FieldStop) {
		j.Stop = new(jsonInstant(f.Stop))
	}
	if f.Fields&fieldsDetails != 0 {
		j.setDetails(f.Fields, f.Details())
	}
	return j, nil
}

func newTupleJSON(t *Tuple, zone uint16) *tupleJSON {
	ports := t.hasPorts() || t.SrcPort|t.DstPort != 0
	icmp := t.Proto == ProtoICMP || t.Proto == ProtoICMPv6 || t.ICMPID != 0 || t.ICMPType|t.ICMPCode != 0
	j := &tupleJSON{
		Proto:    t.Proto.String(),
		SrcPort:  jsonWhen(ports, t.SrcPort),
		DstPort:  jsonWhen(ports, t.DstPort),
		ICMPType: jsonWhen(icmp, t.ICMPType),
		ICMPCode: jsonWhen(icmp, t.ICMPCode),
		ICMPID:   jsonWhen(icmp, t.ICMPID),
		Zone:     zone,
	}
	if t.Src.IsValid() {
		j.Src = t.Src.String()
	}
	if t.Dst.IsValid() {
		j.Dst = t.Dst.String()
	}
	return j
}

func (j *flowJSON) setDetails(has Fields, d Details) {
	j.Secctx = jsonWhen(has&FieldSecurityContext != 0, d.SecurityContext)
	j.Helper = jsonWhen(has&FieldHelper != 0, d.Helper)
	j.SCTP = jsonWhen(has&FieldSCTP != 0, sctpJSON{d.SCTP.State.String(), d.SCTP.OriginalTag, d.SCTP.ReplyTag})
	j.DCCP = jsonWhen(has&FieldDCCP != 0, dccpJSON{d.DCCP.State.String(), d.DCCP.Role, d.DCCP.HandshakeSeq})
	j.SeqAdj = jsonWhen(has&FieldSeqAdjust != 0, seqAdjsJSON{seqAdjJSON(d.OriginalSeq), seqAdjJSON(d.ReplySeq)})
	j.Synproxy = jsonWhen(has&FieldSynproxy != 0, synproxyJSON(d.Synproxy))
	if has&FieldMaster != 0 {
		j.Master = newTupleJSON(&d.Master, d.MasterZone)
	}
	if has&FieldLabels != 0 {
		bits := []uint16{}
		for _, n := range d.Labels.Bits() {
			bits = append(bits, uint16(n))
		}
		j.Labels = &bits
	}
}

// into reads j into *to, unless there is a fault. The prefix is that of its
// keys in errors.
func (j *flowJSON) into(to *Flow, prefix string) error {
	var r jsonReader
	var f Flow
	f.Original, f.OriginalZone = j.Original.read(&r, prefix+"original")
	f.Reply, f.ReplyZone = j.Reply.read(&r, prefix+"reply")
	jsonTake(&f, FieldMark, j.Mark, &f.Mark)
	jsonTake(&f, FieldSecmark, j.Secmark, &f.Secmark)
	jsonTake(&f, FieldZone, j.Zone, &f.Zone)
	jsonTake(&f, FieldID, j.ID, &f.ID)
	jsonTake(&f, FieldUse, j.Use, &f.Use)
	if j.Timeout != nil {
		f.Timeout, f.Fields = time.Duration(*j.Timeout)*time.Second, f.Fields|FieldTimeout
	}
	if j.Status != nil {
		f.Status, f.Fields = r.status(prefix+"status", *j.Status), f.Fields|FieldStatus
	}
	if j.Start != nil {
		f.Start, f.Fields = r.instant(prefix+"start", *j.Start), f.Fields|FieldStart
	}
	if j.Stop != nil {
		f.Stop, f.Fields = r.instant(prefix+"stop", *j.Stop), f.Fields|FieldStop
	}
	if c := j.Counters; c != nil {
		f.OriginalCounter, f.ReplyCounter = Counter(c.Original), Counter(c.Reply)
		f.Fields |= FieldCounters
	}
	if t := j.TCP; t != nil {
		state := jsonState(&r, prefix+"tcp.state", t.State, ParseTCPState)
		f.TCP = TCPInfo{state, t.OriginalFlags, t.ReplyFlags, t.OriginalScale, t.ReplyScale}
		f.Fields |= FieldTCP
	}
	j.readDetails(&r, prefix, &f)
	if r.err == nil {
		*to = f
	}
	return r.err
}

func jsonTake[T any](f *Flow, field Fields, v, to *T) {
	if v != nil {
		*to, f.Fields = *v, f.Fields|field
	}
}

func (j *tupleJSON) read(r *jsonReader, key string) (t Tuple, zone uint16) {
	if j == nil {
		r.fail(key, "is missing")
		return Tuple{}, 0
	}
	t.Src, t.Dst = r.addr(key+".src", j.Src), r.addr(key+".dst", j.Dst)
	t.Proto = r.proto(key+".proto", j.Proto)
	t.SrcPort, t.DstPort = jsonValue(j.SrcPort), jsonValue(j.DstPort)
	t.ICMPType, t.ICMPCode, t.ICMPID = jsonValue(j.ICMPType), jsonValue(j.ICMPCode), jsonValue(j.ICMPID)
	return t, j.Zone
}

func (j *flowJSON) readDetails(r *jsonReader, prefix string, f *Flow) {
	var d Details
	jsonTake(f, FieldHelper, j.Helper, &d.Helper)
	jsonTake(f, FieldSecurityContext, j.Secctx, &d.SecurityContext)
	if j.Master != nil {
		d.Master, d.MasterZone = j.Master.read(r, prefix+"master")
		f.Fields |= FieldMaster
	}
	if s := j.SCTP; s != nil {
		d.SCTP = SCTPInfo{jsonState(r, prefix+"sctp.state", s.State, ParseSCTPState), s.OriginalTag, s.ReplyTag}
		f.Fields |= FieldSCTP
	}
	if s := j.DCCP; s != nil {
		d.DCCP = DCCPInfo{jsonState(r, prefix+"dccp.state", s.State, ParseDCCPState), s.Role, s.HandshakeSeq}
		f.Fields |= FieldDCCP
	}
	if s := j.SeqAdj; s != nil {
		d.OriginalSeq, d.ReplySeq = SeqAdj(s.Original), SeqAdj(s.Reply)
		f.Fields |= FieldSeqAdjust
	}
	if s := j.Synproxy; s != nil {
		d.Synproxy, f.Fields = Synproxy(*s), f.Fields|FieldSynproxy
	}
	if j.Labels != nil {
		d.Labels, f.Fields = r.labels(prefix+"labels", *j.Labels), f.Fields|FieldLabels
	}
	f.setDetails(d)
}

func (r *jsonReader) labels(key string, bits []uint16) (l Labels) {
	for _, n := range bits {
		if n > 127 {
			r.fail(key, strconv.Itoa(int(n))+" is no label")
			continue
		}
		l[n/8] |= 1 << (n % 8)
	}
	return l
}
