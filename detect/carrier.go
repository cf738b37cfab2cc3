package detect

import (
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// carrier is what a pass keeps of a socket that can carry data: a quarter of
// its row.
type carrier struct {
	ends                 ends
	protocol             sockdiag.Protocol
	family               sockdiag.Family
	state                sockdiag.State
	timer                sockdiag.Timer
	retransmits          uint8
	tracked              bool // has an entry
	fields               sockdiag.Fields
	shutdown             uint8
	device, uid, inode   uint32
	recvQueue, sendQueue uint32
	cookie, cgroup       uint64
	expires              time.Duration
	idle                 time.Duration // negative when not known
}

func carry(key ends, s *sockdiag.Socket) carrier {
	c := carrier{
		ends: key, protocol: s.Protocol, family: s.Family, state: s.State, timer: s.Timer, retransmits: s.Retransmits,
		fields: s.Fields & (sockdiag.FieldShutdown | sockdiag.FieldCgroup | sockdiag.UnknownOwner | sockdiag.UnknownTimer), shutdown: s.Shutdown,
		device: s.Interface, uid: s.UID, inode: s.Inode, recvQueue: s.RecvQueue, sendQueue: s.SendQueue,
		cookie: s.Cookie, cgroup: s.CgroupID, expires: s.Expires, idle: -1,
	}
	if idle, ok := idleTime(s); ok {
		c.idle = idle
	}
	return c
}

// socket is the row again.
func (c *carrier) socket() sockdiag.Socket {
	local, remote := c.ends.addrs()
	return sockdiag.Socket{
		Protocol: c.protocol, Family: c.family, State: c.state, Timer: c.timer, Retransmits: c.retransmits,
		Fields: c.fields, Shutdown: c.shutdown, Local: local, Remote: remote,
		Interface: c.device, UID: c.uid, Inode: c.inode, RecvQueue: c.recvQueue, SendQueue: c.sendQueue,
		Cookie: c.cookie, CgroupID: c.cgroup, Expires: c.expires,
	}
}

// tuple is that of the packets the socket sends.
func (c *carrier) tuple() conntrack.Tuple {
	local, remote := c.ends.addrs()
	return conntrack.Tuple{Src: local.Addr(), Dst: remote.Addr(), SrcPort: local.Port(), DstPort: remote.Port(), Proto: conntrack.ProtoTCP}
}

// list is findings of which the first are told, and the others counted.
type list struct {
	most  int // 0 is 1000
	found []Finding
	more  uint64
}

// room reports whether one more is to be told, and counts it if not.
func (l *list) room() bool {
	most := l.most
	if most == 0 {
		most = 1000
	}
	if len(l.found) < most {
		return true
	}
	l.more++
	return false
}

// told returns the findings and, if there were more, one that counts them.
func (l *list) told(detector, what string) []Finding {
	if l.more == 0 {
		return l.found
	}
	return append(l.found, Finding{
		Detector: detector, Severity: Info, Confidence: Likely, Subject: "more " + what,
		Count: l.more, Cause: "more of the same, not told one by one",
	})
}
