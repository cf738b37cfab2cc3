// Package nflog reads the packets that a rule hands to user space: those of
// iptables -j NFLOG and nft log group, through the kernel's nfnetlink_log.
//
//	r, err := nflog.Listen(&nflog.Config{Groups: []uint16{50}})
//	...
//	defer r.Close()
//	for p, err := range r.Packets(ctx) {
//		var lost *nflog.Lost
//		switch {
//		case errors.As(err, &lost):
//			log.Print(lost) // a fact; ranging goes on
//		case err != nil:
//			return err
//		default:
//			h, _ := packet.Decode(p.Payload)
//			fmt.Println(p.Hook, p.Prefix, h)
//		}
//	}
//
// It needs CAP_NET_ADMIN in the network namespace of the rule. A group has one
// listener in each network namespace.
//
// # Why the kernel calls a packet INVALID
//
// Connection tracking writes the reason to group 0, as the prefix of the
// packet ("nf_ct_proto_6: invalid rst "), once two things are set in the
// namespace:
//
//	sysctl net.netfilter.nf_conntrack_log_invalid=6   # IPPROTO_TCP, or 255: all
//	sysctl net.netfilter.nf_log.2=nfnetlink_log       # AF_INET; .10: AF_INET6
//
// Rules with -j LOG or nft log are not changed by it. These packets come one
// by one whatever [Config.Threshold] says, at no limited rate, and their
// [Packet.Hook] is always 0.
//
// # What is lost, and how it is told
//
// This package drops nothing unseen: a reader that is slower than the packets
// lets the kernel's queue fill, and what the kernel then drops is told by a
// [*Lost] in the sequence. Not counted are packets for which the kernel found
// no memory (nfulnl_alloc_skb): those get no number.
//
// # How it stands on go-nflog
//
// The socket protocol and the attributes are those of
// github.com/florianl/go-nflog v2. Its socket is wrapped here, because v2.3.0
// reads messages of the netdev, inet and arp families four bytes off, which
// ends the process for a netdev rule that logs to group 256, 768 or 2048, and
// because it turns the kernel's refusals into text.
package nflog
