package sockdiag

import (
	"cmp"
	"net/netip"
)

func (by *By) has(k Keys) bool { return by.Keys&k != 0 }

// key returns the Key of the group that s belongs to.
func (by *By) key(s *Socket) (k Key) {
	if by.has(KeyProtocol) {
		k.Protocol = s.Protocol
	}
	if by.has(KeyFamily) {
		k.Family = s.Family
	}
	if by.has(KeyState) {
		k.State = s.State
	}
	if by.has(KeyLocalPort) {
		k.LocalPort = s.Local.Port()
	}
	if by.has(KeyRemotePort) {
		k.RemotePort = s.Remote.Port()
	}
	if by.has(KeyPeer) {
		k.Peer = by.peer(s.Remote.Addr())
	}
	if by.has(KeyUser) && s.Inode != 0 {
		k.Owned, k.UID = true, s.UID
	}
	if by.has(KeyCgroup) && s.Fields&FieldCgroup != 0 {
		k.CgroupID = s.CgroupID
	}
	return k
}

// peer returns the prefix of an address; none of the unspecified one.
func (by *By) peer(a netip.Addr) netip.Prefix {
	if a.IsUnspecified() {
		return netip.Prefix{}
	}
	bits := by.IPv6Bits
	if a.Is4() {
		bits = by.IPv4Bits
	}
	p, _ := a.Prefix(bits) // the zero Prefix of no address at all
	return p
}

// compare orders the keys of one By. Prefixes of an address are equally long then.
func (k *Key) compare(l *Key) int {
	owned := func(k *Key) int {
		if k.Owned {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(k.Protocol, l.Protocol),
		cmp.Compare(k.Family, l.Family),
		cmp.Compare(k.State, l.State),
		cmp.Compare(k.LocalPort, l.LocalPort),
		k.Peer.Addr().Compare(l.Peer.Addr()),
		cmp.Compare(k.RemotePort, l.RemotePort),
		cmp.Compare(owned(k), owned(l)),
		cmp.Compare(k.UID, l.UID),
		cmp.Compare(k.CgroupID, l.CgroupID),
	)
}

// count adds a socket.
func (t *Sums) count(s *Socket) {
	t.Sockets++
	t.RecvQueue += uint64(s.RecvQueue)
	t.SendQueue += uint64(s.SendQueue)
	t.AcceptQueue += uint64(s.AcceptQueue)
	t.Backlog += uint64(s.Backlog)
	if s.AcceptQueue > s.Backlog {
		t.Overflown++
	}
	if s.Fields&FieldInfo != 0 {
		t.Infos++
		t.BytesAcked += s.Info.BytesAcked
		t.BytesReceived += s.Info.BytesReceived
		t.BytesRetrans += s.Info.BytesRetrans
		t.TotalRetrans += uint64(s.Info.TotalRetrans)
	}
	if s.Fields&FieldMemory != 0 {
		m := &s.Memory
		t.Memories++
		t.Memory += uint64(m.RcvAlloc) + uint64(m.SndQueued) + uint64(positive(m.FwdAlloc))
		t.Drops += uint64(m.Drops)
	}
}

// add adds other sums.
func (t *Sums) add(o *Sums) {
	t.Sockets += o.Sockets
	t.RecvQueue += o.RecvQueue
	t.SendQueue += o.SendQueue
	t.AcceptQueue += o.AcceptQueue
	t.Backlog += o.Backlog
	t.Overflown += o.Overflown
	t.Infos += o.Infos
	t.BytesAcked += o.BytesAcked
	t.BytesReceived += o.BytesReceived
	t.BytesRetrans += o.BytesRetrans
	t.TotalRetrans += o.TotalRetrans
	t.Memories += o.Memories
	t.Memory += o.Memory
	t.Drops += o.Drops
}
