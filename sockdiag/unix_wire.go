package sockdiag

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	familyUnix Family = 1 // AF_UNIX

	unixRequestLen = 24 // struct unix_diag_req
	unixRowLen     = 16 // struct unix_diag_msg

	// Attributes of a row (enum in linux/unix_diag.h).
	unixName     = 0 // UNIX_DIAG_NAME
	unixVFS      = 1 // UNIX_DIAG_VFS
	unixPeer     = 2 // UNIX_DIAG_PEER
	unixIcons    = 3 // UNIX_DIAG_ICONS
	unixQueues   = 4 // UNIX_DIAG_RQLEN
	unixMemory   = 5 // UNIX_DIAG_MEMINFO
	unixShutdown = 6 // UNIX_DIAG_SHUTDOWN
	unixUID      = 7 // UNIX_DIAG_UID

	// What a request can ask for (UDIAG_SHOW_*): name, file, peer, pending
	// connections, queues and user; and what the buffers hold.
	unixShow       = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40
	unixShowMemory = 0x20
)

// request writes the dump that answers q.
func (q UnixQuery) request() nfnl.Message {
	var b [unixRequestLen]byte
	b[0] = uint8(familyUnix)
	show := uint32(unixShow)
	if q.Memory {
		show |= unixShowMemory
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(q.states()))
	binary.NativeEndian.PutUint32(b[12:], show)
	binary.NativeEndian.PutUint64(b[16:], ^uint64(0)) // INET_DIAG_NOCOOKIE, twice
	r := nfnl.NewBuilder(byFamily, 0)
	r.Raw(b[:])
	return r.Message()
}

// states returns udiag_states.
func (q UnixQuery) states() StateSet {
	if q.States == 0 {
		return allStates
	}
	return q.States
}

func (q UnixQuery) matches(s *UnixSocket) bool {
	return q.states().Has(s.State) && (q.Type == 0 || q.Type == s.Type)
}

// decodeUnix reads one row: struct unix_diag_msg and the attributes after it.
// On error the UnixSocket is zero.
func decodeUnix(b []byte) (UnixSocket, error) {
	if len(b) < unixRowLen {
		return UnixSocket{}, fmt.Errorf("row of %d bytes, want %d: %w", len(b), unixRowLen, nfnl.ErrTruncated)
	}
	if Family(b[0]) != familyUnix {
		return UnixSocket{}, fmt.Errorf("row of %v", Family(b[0]))
	}
	s := UnixSocket{
		Type: UnixType(b[1]), State: State(b[2]),
		Inode: binary.NativeEndian.Uint32(b[4:]), Cookie: cookie(b[8:16]),
	}
	if err := s.attributes(b[unixRowLen:]); err != nil {
		return UnixSocket{}, err
	}
	return s, nil
}

func (s *UnixSocket) attributes(b []byte) error {
	a := nfnl.Walk(b)
	for a.Next() {
		var err error
		switch a.Type {
		case unixName:
			s.name(a.Value)
		case unixVFS:
			err = s.file(a.Attr)
		case unixPeer:
			s.Peer, s.Fields = a.HostU32(), s.Fields|UnixFieldPeer
		case unixIcons:
			s.pending = string(a.Value[:len(a.Value)&^3])
		case unixQueues:
			err = s.queues(a.Attr)
		case unixMemory:
			s.Memory.decode(a.Value)
			s.Fields |= UnixFieldMemory
		case unixShutdown:
			s.Shutdown, s.Fields = a.U8(), s.Fields|UnixFieldShutdown
		case unixUID:
			s.UID, s.Fields = a.HostU32(), s.Fields|UnixFieldUID
		}
		if err != nil {
			return err
		}
	}
	return a.Err()
}

// name reads sun_path: a path ends with a NUL or with the attribute, an
// abstract name begins with a NUL and is as long as the attribute.
func (s *UnixSocket) name(v []byte) {
	if len(v) == 0 {
		return // only a family was bound
	}
	s.Fields |= UnixFieldPath
	if s.Abstract = v[0] == 0; s.Abstract {
		s.Path = "@" + string(v[1:])
		return
	}
	path, _, _ := bytes.Cut(v, []byte{0})
	s.Path = string(path)
}

// file reads struct unix_diag_vfs. The device is in the kernel's own encoding
// (MKDEV), which is not that of stat(2).
func (s *UnixSocket) file(a nfnl.Attr) error {
	b, err := fixed(a, 8)
	if err == nil {
		dev := hostU32(b, 4)
		s.File = UnixFile{Inode: hostU32(b, 0), Major: dev >> 20, Minor: dev & (1<<20 - 1)}
		s.Fields |= UnixFieldFile
	}
	return err
}

// queues reads struct unix_diag_rqlen, which counts connections instead of
// bytes on a listener.
func (s *UnixSocket) queues(a nfnl.Attr) error {
	b, err := fixed(a, 8)
	if err != nil {
		return err
	}
	s.Fields |= UnixFieldQueues
	r, w := hostU32(b, 0), hostU32(b, 4)
	if s.State == Listen {
		s.AcceptQueue, s.Backlog = r, w
	} else {
		s.RecvQueue, s.SendQueue = positive(r), positive(w)
	}
	return nil
}
