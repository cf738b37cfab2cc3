package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// Messages (linux/rtnetlink.h).
const (
	rtmNewLink  = 16 // RTM_NEWLINK
	rtmGetLink  = 18 // RTM_GETLINK
	rtmNewAddr  = 20 // RTM_NEWADDR
	rtmNewRoute = 24 // RTM_NEWROUTE
	rtmGetRoute = 26 // RTM_GETROUTE
	rtmNewNeigh = 28 // RTM_NEWNEIGH
)

const (
	iflaAddress   = 1  // IFLA_ADDRESS
	iflaIfname    = 3  // IFLA_IFNAME
	iflaOperstate = 16 // IFLA_OPERSTATE
	iflaLinkinfo  = 18 // IFLA_LINKINFO
	iflaNetNSFd   = 28 // IFLA_NET_NS_FD
	iflaInfoKind  = 1  // IFLA_INFO_KIND
	iflaInfoData  = 2  // IFLA_INFO_DATA
	vethInfoPeer  = 1  // VETH_INFO_PEER

	ifaAddress = 1    // IFA_ADDRESS
	ifaLocal   = 2    // IFA_LOCAL
	ifaNoDAD   = 0x02 // IFA_F_NODAD

	rtaDst     = 1 // RTA_DST
	rtaGateway = 5 // RTA_GATEWAY

	ndaDst    = 1 // NDA_DST
	ndaLLAddr = 2 // NDA_LLADDR

	ifUp          = 1    // IFF_UP
	operUp        = 6    // IF_OPER_UP
	nudPermanent  = 0x80 // NUD_PERMANENT
	tableMain     = 254  // RT_TABLE_MAIN
	protoStatic   = 4    // RTPROT_STATIC
	typeUnicast   = 1    // RTN_UNICAST
	typeLocal     = 2    // RTN_LOCAL
	loopbackIndex = 1    // LOOPBACK_IFINDEX
)

// bound is how long the kernel may take for one step of a set-up.
const bound = 10 * time.Second

// request carries out one rtnetlink request in the host. fn gets the messages
// of the answer; it may be nil.
func (h *Host) request(b *nfnl.Builder, fn func(nfnl.Message) error) error {
	c, err := nfnl.Dial(nfnl.Route, &nfnl.Config{NetNS: h.NetNS()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return errors.Join(c.Do(ctx, b.Message(), fn), c.Close())
}

// ifinfo is a struct ifinfomsg.
func ifinfo(index, flags, change uint32) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func (h *Host) upLoopback() error { return h.up(loopbackIndex) }

func (h *Host) up(index uint32) error {
	b := nfnl.NewBuilder(rtmNewLink, 0)
	b.Raw(ifinfo(index, ifUp, ifUp))
	return h.request(b, nil)
}

// addVeth makes a pair of interfaces, one in h and one in the peer.
func (h *Host) addVeth(mine, theirs port) error {
	b := nfnl.NewBuilder(rtmNewLink, nfnl.Create|nfnl.Exclude)
	b.Raw(ifinfo(mine.index, 0, 0))
	b.String(iflaIfname, mine.peer.name)
	b.Bytes(iflaAddress, mine.mac[:])
	b.Nested(iflaLinkinfo, func() {
		b.String(iflaInfoKind, "veth")
		b.Nested(iflaInfoData, func() {
			b.Nested(vethInfoPeer, func() {
				b.Raw(ifinfo(theirs.index, 0, 0))
				b.String(iflaIfname, h.name)
				b.Bytes(iflaAddress, theirs.mac[:])
				b.HostU32(iflaNetNSFd, mine.peer.ns.fd())
			})
		})
	})
	return h.request(b, nil)
}

// isUp reports whether packets can go out: the interface has its queue only
// when its operational state is up.
func (h *Host) isUp(index uint32) (up bool, err error) {
	b := nfnl.NewBuilder(rtmGetLink, 0)
	b.Raw(ifinfo(index, 0, 0))
	err = h.request(b, func(m nfnl.Message) error {
		a := nfnl.Walk(m.Data[min(16, len(m.Data)):])
		for a.Next() {
			if a.Type == iflaOperstate {
				up = a.U8() == operUp
			}
		}
		return a.Err()
	})
	return up, err
}

// family is AF_INET or AF_INET6.
func family(a netip.Addr) byte {
	if a.Is4() {
		return 2
	}
	return 10
}

func (h *Host) addAddr(index uint32, p netip.Prefix) error {
	b := nfnl.NewBuilder(rtmNewAddr, nfnl.Create|nfnl.Exclude)
	b.Raw(binary.NativeEndian.AppendUint32([]byte{family(p.Addr()), byte(p.Bits()), ifaNoDAD, 0}, index)) // struct ifaddrmsg
	b.Bytes(ifaLocal, p.Addr().AsSlice())
	b.Bytes(ifaAddress, p.Addr().AsSlice())
	return h.request(b, nil)
}

// isLocal reports whether packets to the address are delivered to the host. An
// IPv6 address gets its route some time after it was added.
func (h *Host) isLocal(a netip.Addr) (local bool, err error) {
	b := nfnl.NewBuilder(rtmGetRoute, 0)
	b.Raw([]byte{family(a), byte(a.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // struct rtmsg
	b.Bytes(rtaDst, a.AsSlice())
	err = h.request(b, func(m nfnl.Message) error {
		const typeAt = 7 // rtmsg.rtm_type
		local = len(m.Data) > typeAt && m.Data[typeAt] == typeLocal
		return nil
	})
	return local, err
}

// addNeighbour makes a permanent entry of the ARP or neighbour table.
func (h *Host) addNeighbour(index uint32, a netip.Addr, mac [6]byte) error {
	b := nfnl.NewBuilder(rtmNewNeigh, nfnl.Create|nfnl.Replace)
	msg := make([]byte, 12) // struct ndmsg
	msg[0] = family(a)
	binary.NativeEndian.PutUint32(msg[4:], index)
	binary.NativeEndian.PutUint16(msg[8:], nudPermanent)
	b.Raw(msg)
	b.Bytes(ndaDst, a.AsSlice())
	b.Bytes(ndaLLAddr, mac[:])
	return h.request(b, nil)
}

func (h *Host) addRoute(dst netip.Prefix, via netip.Addr) error {
	b := nfnl.NewBuilder(rtmNewRoute, nfnl.Create|nfnl.Replace)
	b.Raw([]byte{family(via), byte(dst.Bits()), 0, 0, tableMain, protoStatic, 0, typeUnicast, 0, 0, 0, 0}) // struct rtmsg
	if dst.Bits() > 0 {
		b.Bytes(rtaDst, dst.Addr().AsSlice())
	}
	b.Bytes(rtaGateway, via.AsSlice())
	return h.request(b, nil)
}
