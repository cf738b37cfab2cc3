package sockdiag

import "time"

// socketJSON is the form of a Socket in JSON. What is absent is a nil pointer,
// so that it stays apart from zero.
type socketJSON struct {
	Protocol    string      `json:"protocol"`
	Family      string      `json:"family"`
	State       string      `json:"state"`
	Local       string      `json:"local,omitempty"`
	Remote      string      `json:"remote,omitempty"`
	Interface   uint32      `json:"interface,omitempty"`
	Timer       *string     `json:"timer,omitempty"`
	Expires     uint64      `json:"expires_ms,omitempty"`
	Retransmits *uint8      `json:"retransmits,omitempty"`
	RecvQueue   *uint32     `json:"recv_queue,omitempty"`
	SendQueue   *uint32     `json:"send_queue,omitempty"`
	AcceptQueue *uint32     `json:"accept_queue,omitempty"`
	Backlog     *uint32     `json:"backlog,omitempty"`
	UID         *uint32     `json:"uid,omitempty"`
	Inode       *uint32     `json:"inode,omitempty"`
	Cookie      uint64      `json:"cookie,omitempty"`
	Shutdown    *[]string   `json:"shutdown,omitempty"`
	V6Only      *bool       `json:"v6only,omitempty"`
	Mark        *uint32     `json:"mark,omitempty"`
	CgroupID    *uint64     `json:"cgroup_id,omitempty"`
	TOS         *uint8      `json:"tos,omitempty"`
	TClass      *uint8      `json:"tclass,omitempty"`
	ClassID     *uint32     `json:"class_id,omitempty"`
	RawProtocol *uint8      `json:"raw_protocol,omitempty"`
	Association bool        `json:"association,omitempty"`
	Options     *[]string   `json:"options,omitempty"`
	Memory      *memoryJSON `json:"memory,omitempty"`
	Congestion  string      `json:"congestion,omitempty"`
	BBR         *bbrJSON    `json:"bbr,omitempty"`
	DCTCP       *dctcpJSON  `json:"dctcp,omitempty"`
	Vegas       *vegasJSON  `json:"vegas,omitempty"`
	ULP         string      `json:"ulp,omitempty"`
	TLS         *tlsJSON    `json:"tls,omitempty"`
	MPTCP       *mptcpJSON  `json:"mptcp,omitempty"`
	Info        *TCPInfo    `json:"info,omitempty"`
}

type memoryJSON struct {
	RcvAlloc   uint32 `json:"rcv_alloc"`
	RcvBuf     uint32 `json:"rcv_buf"`
	SndAlloc   uint32 `json:"snd_alloc"`
	SndBuf     uint32 `json:"snd_buf"`
	FwdAlloc   uint32 `json:"fwd_alloc"`
	SndQueued  uint32 `json:"snd_queued"`
	OptMem     uint32 `json:"opt_mem"`
	RcvBacklog uint32 `json:"rcv_backlog"`
	Drops      uint32 `json:"drops"`
}

type bbrJSON struct {
	Bandwidth  uint64 `json:"bandwidth"`
	MinRTT     uint64 `json:"min_rtt_us"`
	PacingGain uint32 `json:"pacing_gain"`
	WindowGain uint32 `json:"cwnd_gain"`
}

type dctcpJSON struct {
	Enabled bool   `json:"enabled"`
	CEState uint16 `json:"ce_state"`
	Alpha   uint32 `json:"alpha"`
	ABECN   uint32 `json:"ab_ecn"`
	ABTotal uint32 `json:"ab_tot"`
}

type vegasJSON struct {
	Enabled  bool   `json:"enabled"`
	RTTCount uint32 `json:"rtt_count"`
	RTT      uint64 `json:"rtt_us"`
	MinRTT   uint64 `json:"min_rtt_us"`
}

type tlsJSON struct {
	Version     uint16 `json:"version"`
	Cipher      uint16 `json:"cipher"`
	SendMode    uint16 `json:"send_mode"`
	ReceiveMode uint16 `json:"receive_mode"`
}

type mptcpJSON struct {
	RemoteToken uint32 `json:"remote_token"`
	LocalToken  uint32 `json:"local_token"`
	Flags       uint32 `json:"flags"`
	RemoteID    uint8  `json:"remote_id"`
	LocalID     uint8  `json:"local_id"`
}

func newSocketJSON(s *Socket) *socketJSON {
	owner, timer, listens := !s.Has(UnknownOwner), !s.Has(UnknownTimer), s.State == Listen
	j := &socketJSON{
		Protocol: s.Protocol.String(), Family: s.Family.String(), State: s.State.String(),
		Local: jsonAddrPort(s.Local), Remote: jsonAddrPort(s.Remote), Interface: s.Interface,
		Timer: jsonWhen(timer, s.Timer.String()), Expires: jsonMicros(s.Expires) / 1000,
		Retransmits: jsonWhen(timer, s.Retransmits),
		RecvQueue:   jsonWhen(!listens || s.RecvQueue != 0, s.RecvQueue),
		SendQueue:   jsonWhen(!listens || s.SendQueue != 0, s.SendQueue),
		AcceptQueue: jsonWhen(listens || s.AcceptQueue != 0, s.AcceptQueue),
		Backlog:     jsonWhen(listens && !s.Has(UnknownBacklog) || s.Backlog != 0, s.Backlog),
		UID:         jsonWhen(owner, s.UID), Inode: jsonWhen(owner, s.Inode), Cookie: s.Cookie,
		V6Only: jsonWhen(s.Has(FieldV6Only), s.V6Only), Mark: jsonWhen(s.Has(FieldMark), s.Mark),
		CgroupID: jsonWhen(s.Has(FieldCgroup), s.CgroupID), TOS: jsonWhen(s.Has(FieldTOS), s.TOS),
		TClass: jsonWhen(s.Has(FieldTClass), s.TClass), ClassID: jsonWhen(s.Has(FieldClassID), s.ClassID),
		RawProtocol: jsonWhen(s.Has(FieldRawProtocol), s.RawProtocol), Association: s.Has(FieldAssociation),
		Memory: jsonWhen(s.Has(FieldMemory), memoryJSON(s.Memory)), Info: jsonWhen(s.Has(FieldInfo), s.Info),
	}
	if s.Has(FieldShutdown) {
		j.Shutdown = new(jsonBits(uint64(s.Shutdown), shutdownNames))
	}
	if s.Has(FieldOptions) {
		j.Options = new(jsonBits(uint64(s.Options), optionNames[:]))
	}
	if s.Has(FieldDetails) {
		j.setDetails(s.Details())
	}
	return j
}

func jsonMicros(d time.Duration) uint64 { return uint64(max(0, d/time.Microsecond)) }

func (j *socketJSON) setDetails(d Details) {
	j.Congestion, j.ULP = d.Congestion, d.ULP
	b, v := d.BBR, d.Vegas
	j.BBR = jsonWhen(b != BBRInfo{}, bbrJSON{b.Bandwidth, jsonMicros(b.MinRTT), b.PacingGain, b.WindowGain})
	j.DCTCP = jsonWhen(d.DCTCP != DCTCPInfo{}, dctcpJSON(d.DCTCP))
	j.Vegas = jsonWhen(v != VegasInfo{}, vegasJSON{v.Enabled, v.RTTCount, jsonMicros(v.RTT), jsonMicros(v.MinRTT)})
	j.TLS = jsonWhen(d.TLS != TLSInfo{}, tlsJSON(d.TLS))
	j.MPTCP = jsonWhen(d.MPTCP != SubflowInfo{}, mptcpJSON(d.MPTCP))
}

// into reads j into *to, unless there is a fault.
func (j *socketJSON) into(to *Socket) error {
	var r jsonReader
	s := Socket{
		Protocol: jsonWord(&r, "protocol", j.Protocol, "Protocol", MPTCP),
		Family:   jsonWord(&r, "family", j.Family, "Family", IPv6),
		State:    r.state("state", j.State),
		Local:    r.addrPort("local", j.Local), Remote: r.addrPort("remote", j.Remote),
		Interface: j.Interface, Cookie: j.Cookie,
		Expires:   r.duration("expires_ms", j.Expires, time.Millisecond),
		RecvQueue: jsonValue(j.RecvQueue), SendQueue: jsonValue(j.SendQueue),
		AcceptQueue: jsonValue(j.AcceptQueue), Backlog: jsonValue(j.Backlog),
		UID: jsonValue(j.UID), Inode: jsonValue(j.Inode), Retransmits: jsonValue(j.Retransmits),
	}
	if j.Timer != nil {
		s.Timer = jsonWord(&r, "timer", *j.Timer, "Timer", TimerDelayAck)
	}
	s.setIf(UnknownTimer, j.Timer == nil)
	s.setIf(UnknownOwner, j.UID == nil && j.Inode == nil)
	s.setIf(UnknownBacklog, s.State == Listen && j.Backlog == nil)
	j.fields(&r, &s)
	s.setDetails(j.details(&r))
	if r.err == nil {
		*to = s
	}
	return r.err
}

func (s *Socket) setIf(field Fields, ok bool) {
	if ok {
		s.Fields |= field
	}
}

func jsonTake[T any](s *Socket, field Fields, v, to *T) {
	if v != nil {
		*to, s.Fields = *v, s.Fields|field
	}
}

func (j *socketJSON) fields(r *jsonReader, s *Socket) {
	jsonTake(s, FieldV6Only, j.V6Only, &s.V6Only)
	jsonTake(s, FieldMark, j.Mark, &s.Mark)
	jsonTake(s, FieldCgroup, j.CgroupID, &s.CgroupID)
	jsonTake(s, FieldTOS, j.TOS, &s.TOS)
	jsonTake(s, FieldTClass, j.TClass, &s.TClass)
	jsonTake(s, FieldClassID, j.ClassID, &s.ClassID)
	jsonTake(s, FieldRawProtocol, j.RawProtocol, &s.RawProtocol)
	jsonTake(s, FieldMemory, (*Memory)(j.Memory), &s.Memory)
	jsonTake(s, FieldInfo, j.Info, &s.Info)
	s.setIf(FieldAssociation, j.Association)
	if j.Shutdown != nil {
		s.Shutdown, s.Fields = uint8(r.bits("shutdown", *j.Shutdown, shutdownNames, 8)), s.Fields|FieldShutdown
	}
	if j.Options != nil {
		s.Options, s.Fields = Options(r.bits("options", *j.Options, optionNames[:], 16)), s.Fields|FieldOptions
	}
}

func (j *socketJSON) details(r *jsonReader) Details {
	b, v := jsonValue(j.BBR), jsonValue(j.Vegas)
	us := func(key string, n uint64) time.Duration { return r.duration(key, n, time.Microsecond) }
	return Details{
		Congestion: j.Congestion, ULP: j.ULP,
		BBR:   BBRInfo{b.Bandwidth, us("bbr.min_rtt_us", b.MinRTT), b.PacingGain, b.WindowGain},
		DCTCP: DCTCPInfo(jsonValue(j.DCTCP)),
		Vegas: VegasInfo{v.Enabled, v.RTTCount, us("vegas.rtt_us", v.RTT), us("vegas.min_rtt_us", v.MinRTT)},
		TLS:   TLSInfo(jsonValue(j.TLS)), MPTCP: SubflowInfo(jsonValue(j.MPTCP)),
	}
}
