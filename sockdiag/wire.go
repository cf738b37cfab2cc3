package sockdiag

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"time"
	"unique"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	byFamily = 20 // SOCK_DIAG_BY_FAMILY: a request's message type and a row's

	requestLen = 56 // struct inet_diag_req_v2
	rowLen     = 72 // struct inet_diag_msg
	addrLen    = 16 // idiag_src, idiag_dst
)

// Attributes of a row (enum in linux/inet_diag.h).
const (
	attrInfo        = 2  // INET_DIAG_INFO
	attrTOS         = 5  // INET_DIAG_TOS
	attrTClass      = 6  // INET_DIAG_TCLASS
	attrMemory      = 7  // INET_DIAG_SKMEMINFO
	attrShutdown    = 8  // INET_DIAG_SHUTDOWN
	attrRawProtocol = 10 // INET_DIAG_PROTOCOL
	attrV6Only      = 11 // INET_DIAG_SKV6ONLY
	attrPeers       = 13 // INET_DIAG_PEERS: of an association of SCTP
	attrMark        = 15 // INET_DIAG_MARK
	attrClassID     = 17 // INET_DIAG_CLASS_ID
	attrCgroupID    = 21 // INET_DIAG_CGROUP_ID
	attrOptions     = 22 // INET_DIAG_SOCKOPT
)

// requestBytecode is the request's attribute for what to select
// (INET_DIAG_REQ_BYTECODE).
const requestBytecode = 1

// requestProtocol is the request's attribute for protocols beyond 255
// (INET_DIAG_REQ_PROTOCOL). Kernels before Linux 5.9 ignore it: the header then
// names IPPROTO_IP, which has no sockets, lest they take 262 for 6.
const requestProtocol = 3

// request writes the dump of one family that answers q. Addresses and
// interface are left out: the kernel ignores them in a dump.
func (q Query) request(f Family) nfnl.Message {
	plan, _ := q.plan(f, 0)
	return q.requestOf(&plan)
}

func (q Query) requestOf(d *DumpPlan) nfnl.Message {
	var b [requestLen]byte
	p := q.protocol()
	b[0], b[2] = uint8(d.Family), q.extensions()
	if p <= 255 {
		b[1] = uint8(p)
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(d.States))
	binary.BigEndian.PutUint16(b[8:], d.LocalPort)
	binary.BigEndian.PutUint16(b[10:], d.RemotePort)
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0)) // INET_DIAG_NOCOOKIE, twice
	r := nfnl.NewBuilder(byFamily, 0)
	r.Raw(b[:])
	if len(d.Bytecode) > 0 {
		r.Bytes(requestBytecode, d.Bytecode)
	}
	if p > 255 {
		r.HostU32(requestProtocol, uint32(p))
	}
	return r.Message()
}

// extensions returns idiag_ext.
func (q Query) extensions() uint8 {
	var ext uint8
	for _, e := range []struct {
		asked bool
		bits  uint8
	}{
		{q.Info, 1 << (attrInfo - 1)},
		{q.Memory, 1 << (attrMemory - 1)},
		{q.Congestion, 1<<(attrCongestion-1) | 1<<(attrVegas-1)},
		{q.TOS, 1<<(attrTOS-1) | 1<<(attrTClass-1)},
	} {
		if e.asked {
			ext |= e.bits
		}
	}
	return ext
}

// decodeSocket reads one row of TCP: struct inet_diag_msg and the attributes after
// it. Attributes it does not know are skipped. On error the Socket is zero.
func decodeSocket(b []byte) (Socket, error) {
	s := Socket{Protocol: TCP}
	if err := s.decode(b); err != nil {
		return Socket{}, err
	}
	return s, nil
}

// decode reads a row of s.Protocol in place, whatever else s held before. On
// error s is neither the old nor the new.
func (s *Socket) decode(b []byte) error {
	if len(b) < rowLen {
		return fmt.Errorf("row of %d bytes, want %d: %w", len(b), rowLen, nfnl.ErrTruncated)
	}
	s.header(b)
	if err := s.addresses(b); err != nil {
		return err
	}
	s.queues(binary.NativeEndian.Uint32(b[56:]), binary.NativeEndian.Uint32(b[60:]))
	err := s.attributes(b[rowLen:])
	if s.Protocol == SCTP {
		s.sctp()
	}
	return err
}

// header reads the numbers of struct inet_diag_msg.
func (s *Socket) header(b []byte) {
	s.Family, s.State, s.Timer, s.Retransmits = Family(b[0]), State(b[1]), Timer(b[2]), b[3]
	s.Interface = binary.NativeEndian.Uint32(b[40:])
	s.Cookie = cookie(b[44:52])
	s.Expires = expires(binary.NativeEndian.Uint32(b[52:]))
	s.UID = binary.NativeEndian.Uint32(b[64:])
	s.Inode = binary.NativeEndian.Uint32(b[68:])
}

// addresses reads struct inet_diag_sockid's ends of the connection.
func (s *Socket) addresses(b []byte) error {
	src, dst := b[8:8+addrLen], b[24:24+addrLen]
	switch s.Family {
	case IPv4:
		s.ends(b, netip.AddrFrom4([4]byte(src)), netip.AddrFrom4([4]byte(dst)))
	case IPv6:
		s.ends(b, netip.AddrFrom16([16]byte(src)).Unmap(), netip.AddrFrom16([16]byte(dst)).Unmap())
	default:
		return fmt.Errorf("row of %v", s.Family)
	}
	return nil
}

func (s *Socket) ends(b []byte, src, dst netip.Addr) {
	s.Local = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[6:]))
}

// cookie joins the two words of sock_diag_save_cookie, the low one first on
// every machine.
func cookie(b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(b)) | uint64(binary.NativeEndian.Uint32(b[4:]))<<32
}

// expires reads idiag_expires, in milliseconds. Kernels that subtract jiffies
// unchecked show an overdue timer as a negative number.
func expires(ms uint32) time.Duration {
	return max(0, time.Duration(int32(ms))*time.Millisecond)
}

// queues takes idiag_rqueue and idiag_wqueue, which count connections instead
// of bytes on a listener (tcp_diag_get_info). The kernel subtracts without a
// lock, and 1 from what a dying UDP socket has left: less than nothing is
// nothing.
func (s *Socket) queues(r, w uint32) {
	s.RecvQueue, s.SendQueue, s.AcceptQueue, s.Backlog = positive(r), positive(w), 0, 0
	if s.State == Listen {
		s.RecvQueue, s.SendQueue, s.AcceptQueue, s.Backlog = 0, 0, r, w
	}
}

// positive reads a number of C's type int that should not be negative.
func positive(n uint32) uint32 { return uint32(max(0, int32(n))) }

func (s *Socket) attributes(b []byte) error {
	had, whole := s.Fields, b
	s.clear(had)
	var a nfnl.Attr
	var bad nfnl.Fault
	for len(b) > 0 {
		a, b = nfnl.Cut(b)
		switch a.Type {
		case attrShutdown:
			s.Shutdown, s.Fields = a.U8(&bad), s.Fields|FieldShutdown
		case attrV6Only:
			s.V6Only, s.Fields = a.U8(&bad) != 0, s.Fields|FieldV6Only
		case attrMark:
			s.Mark, s.Fields = a.HostU32(&bad), s.Fields|FieldMark
		case attrCgroupID:
			s.CgroupID, s.Fields = a.HostU64(&bad), s.Fields|FieldCgroup
		case attrOptions:
			s.Options, s.Fields = socketOptions(a.Value, bigEndian), s.Fields|FieldOptions
		case attrInfo:
			if s.Protocol != TCP {
				continue // MPTCP and SCTP have another structure
			}
			if len(a.Value) < infoBaseLen {
				return &nfnl.AttrError{Type: a.Type, Have: len(a.Value), Want: infoBaseLen}
			}
			s.Info.decode(a.Value)
			s.Fields |= FieldInfo
		case attrMemory:
			s.Memory.decode(a.Value)
			s.Fields |= FieldMemory
		case attrTOS:
			s.TOS, s.Fields = a.U8(&bad), s.Fields|FieldTOS
		case attrTClass:
			s.TClass, s.Fields = a.U8(&bad), s.Fields|FieldTClass
		case attrRawProtocol:
			s.RawProtocol, s.Fields = a.U8(&bad), s.Fields|FieldRawProtocol
		case attrClassID:
			s.ClassID, s.Fields = a.HostU32(&bad), s.Fields|FieldClassID
		case attrPeers:
			s.Fields |= FieldAssociation
		case attrCongestion, attrBBR, attrDCTCP, attrVegas, attrULP:
			s.Fields |= FieldDetails
		}
	}
	if err := bad.After(a); err != nil {
		return err
	}
	if had&^s.Fields&FieldInfo != 0 { // else it is zero: most of a Socket
		s.Info = TCPInfo{}
	}
	if s.Fields&FieldDetails != 0 {
		return s.decodeDetails(whole)
	}
	return nil
}

// clear takes out what an attribute may set, but Info.
func (s *Socket) clear(had Fields) {
	s.Fields, s.Shutdown, s.V6Only, s.Mark, s.CgroupID, s.Options = 0, 0, false, 0, 0, 0
	if had&^(FieldShutdown|FieldV6Only|FieldMark|FieldCgroup|FieldOptions|FieldInfo) != 0 {
		s.TOS, s.TClass, s.RawProtocol, s.ClassID = 0, 0, 0, 0
		s.Memory, s.details = Memory{}, unique.Handle[Details]{}
	}
}

// socketOptions reads struct inet_diag_sockopt, whose bit fields begin with the
// low bit of each byte on a little-endian machine and with the high one on a
// big-endian one.
func socketOptions(b []byte, big bool) Options {
	var o Options
	for i, v := range b[:min(len(b), 2)] {
		if big {
			v = bits.Reverse8(v)
		}
		o |= Options(v) << (8 * i)
	}
	return o
}

// decode reads the numbers there are: the list has grown with the kernel.
func (m *Memory) decode(b []byte) {
	*m = Memory{}
	for i, to := range [...]*uint32{
		&m.RcvAlloc, &m.RcvBuf, &m.SndAlloc, &m.SndBuf, &m.FwdAlloc, &m.SndQueued, &m.OptMem, &m.RcvBacklog, &m.Drops,
	} {
		if len(b) >= 4*(i+1) {
			*to = binary.NativeEndian.Uint32(b[4*i:])
		}
	}
}
