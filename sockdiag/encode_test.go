package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// cInfo is struct tcp_info, field by field in C's order: what the decoder's
// offsets are checked against.
type cInfo struct {
	State, CAState, Retransmits, Probes, Backoff, Options, Scales, Flags uint8

	RTO, ATO, SndMSS, RcvMSS                             uint32
	Unacked, Sacked, Lost, Retrans, Fackets              uint32
	LastDataSent, LastAckSent, LastDataRecv, LastAckRecv uint32
	PMTU, RcvSsthresh, RTT, RTTVar                       uint32
	SndSsthresh, SndCwnd, AdvMSS, Reordering             uint32
	RcvRTT, RcvSpace, TotalRetrans                       uint32

	PacingRate, MaxPacingRate, BytesAcked, BytesReceived  uint64
	SegsOut, SegsIn                                       uint32
	NotsentBytes, MinRTT, DataSegsIn, DataSegsOut         uint32
	DeliveryRate                                          uint64
	BusyTime, RwndLimited, SndbufLimited                  uint64
	Delivered, DeliveredCE                                uint32
	BytesSent, BytesRetrans                               uint64
	DSACKDups, ReordSeen                                  uint32
	RcvOOOPack, SndWnd                                    uint32
	RcvWnd, Rehash                                        uint32
	TotalRTO, TotalRTORecoveries                          uint16
	TotalRTOTime                                          uint32
	ReceivedCE, DeliveredE1, DeliveredE0, DeliveredCEByte uint32
	ReceivedE0, ReceivedE1, ReceivedCEByte, LastFour      uint32
}

// cInfoOf is the inverse of TCPInfo.decode.
func cInfoOf(t *TCPInfo) *cInfo {
	us := func(d time.Duration) uint32 { return uint32(d / time.Microsecond) }
	ms := func(d time.Duration) uint32 { return uint32(d / time.Millisecond) }
	long := func(d time.Duration) uint64 { return uint64(d / time.Microsecond) }
	c := &cInfo{
		State: uint8(t.State), CAState: uint8(t.CAState), Retransmits: t.Retransmits, Probes: t.Probes,
		Backoff: t.Backoff, Options: t.Options,
		RTO: us(t.RTO), ATO: us(t.ATO), SndMSS: t.SndMSS, RcvMSS: t.RcvMSS,
		Unacked: t.Unacked, Sacked: t.Sacked, Lost: t.Lost, Retrans: t.Retrans, Fackets: t.Fackets,
		LastDataSent: ms(t.LastDataSent), LastAckSent: ms(t.LastAckSent),
		LastDataRecv: ms(t.LastDataRecv), LastAckRecv: ms(t.LastAckRecv),
		PMTU: t.PMTU, RcvSsthresh: t.RcvSsthresh, RTT: us(t.RTT), RTTVar: us(t.RTTVar),
		SndSsthresh: t.SndSsthresh, SndCwnd: t.SndCwnd, AdvMSS: t.AdvMSS, Reordering: t.Reordering,
		RcvRTT: us(t.RcvRTT), RcvSpace: t.RcvSpace, TotalRetrans: t.TotalRetrans,
		PacingRate: t.PacingRate, MaxPacingRate: t.MaxPacingRate,
		BytesAcked: t.BytesAcked, BytesReceived: t.BytesReceived,
		SegsOut: t.SegsOut, SegsIn: t.SegsIn, NotsentBytes: t.NotsentBytes, MinRTT: us(t.MinRTT),
		DataSegsIn: t.DataSegsIn, DataSegsOut: t.DataSegsOut, DeliveryRate: t.DeliveryRate,
		BusyTime: long(t.BusyTime), RwndLimited: long(t.RwndLimited), SndbufLimited: long(t.SndbufLimited),
		Delivered: t.Delivered, DeliveredCE: t.DeliveredCE, BytesSent: t.BytesSent,
		BytesRetrans: t.BytesRetrans, DSACKDups: t.DSACKDups, ReordSeen: t.ReordSeen,
		RcvOOOPack: t.RcvOOOPack, SndWnd: t.SndWnd, RcvWnd: t.RcvWnd, Rehash: t.Rehash,
		TotalRTO: t.TotalRTO, TotalRTORecoveries: t.TotalRTORecoveries, TotalRTOTime: ms(t.TotalRTOTime),
	}
	c.setBits(t)
	return c
}

func (c *cInfo) setBits(t *TCPInfo) {
	limited := uint8(0)
	if t.AppLimited {
		limited = 1
	}
	if bigEndian {
		c.Scales, c.Flags = t.SndWscale<<4|t.RcvWscale, limited<<7|t.FastOpenFail<<5
		return
	}
	c.Scales, c.Flags = t.SndWscale|t.RcvWscale<<4, limited|t.FastOpenFail<<1
}

// encodeInfo writes t as a kernel that knows the parts of t.Fields does.
func encodeInfo(t *TCPInfo) []byte {
	b, err := binary.Append(nil, binary.NativeEndian, cInfoOf(t))
	if err != nil {
		panic(err) // cInfo has a fixed size
	}
	n := 0
	for i, end := range infoEnds {
		if t.Has(1 << i) {
			n = end
		}
	}
	return b[:n]
}

// cRow is struct inet_diag_msg.
type cRow struct {
	Family, State, Timer, Retrans uint8
	Ports                         [4]byte
	Src, Dst                      [16]byte
	If                            uint32
	Cookie                        [2]uint32
	Expires, Recv, Send           uint32
	UID, Inode                    uint32
}

// encodeSocket is the inverse of decodeSocket.
func encodeSocket(s Socket) []byte {
	c := cRow{
		Family: uint8(s.Family), State: uint8(s.State), Timer: uint8(s.Timer), Retrans: s.Retransmits,
		Src: encodeAddr(&s, s.Local.Addr()), Dst: encodeAddr(&s, s.Remote.Addr()),
		If: s.Interface, Cookie: [2]uint32{uint32(s.Cookie), uint32(s.Cookie >> 32)},
		Expires: uint32(s.Expires / time.Millisecond),
		Recv:    s.RecvQueue + s.AcceptQueue, Send: s.SendQueue + s.Backlog,
		UID: s.UID, Inode: s.Inode,
	}
	binary.BigEndian.PutUint16(c.Ports[:], s.Local.Port())
	binary.BigEndian.PutUint16(c.Ports[2:], s.Remote.Port())
	b, err := binary.Append(nil, binary.NativeEndian, c)
	if err != nil {
		panic(err) // cRow has a fixed size
	}
	return append(b, encodeAttrs(&s)...)
}

func encodeAddr(s *Socket, a netip.Addr) (b [16]byte) {
	if s.Family == IPv4 {
		copy(b[:], a.AsSlice())
		return b
	}
	return a.As16()
}

func encodeAttrs(s *Socket) []byte {
	r := nfnl.NewBuilder(0, 0)
	if s.Has(FieldShutdown) {
		r.U8(attrShutdown, s.Shutdown)
	}
	if s.Has(FieldV6Only) {
		v := uint8(0)
		if s.V6Only {
			v = 1
		}
		r.U8(attrV6Only, v)
	}
	if s.Has(FieldMark) {
		r.HostU32(attrMark, s.Mark)
	}
	if s.Has(FieldCgroup) {
		r.Bytes(attrCgroupID, binary.NativeEndian.AppendUint64(nil, s.CgroupID))
	}
	if s.Has(FieldInfo) {
		r.Bytes(attrInfo, encodeInfo(&s.Info))
	}
	encodeRare(r, s)
	return r.Message().Data
}
