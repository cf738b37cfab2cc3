// Package nfnl is this project's one door to netlink: every byte that goes to
// or comes from the kernel's netfilter, sock_diag and route families passes
// here.
//
//   - attr.go walks attributes on borrowed bytes, without copying.
//   - builder.go writes requests.
//   - message.go frames messages and reads acknowledgements.
//   - conn.go holds a small pool of sockets, so that a request can be made
//     while a dump is being read, and so that dumps can run side by side.
//   - dump.go, request.go and listen.go are the three conversations.
//   - socket_linux.go is the only file with system calls and with unsafe.
//
// Why not mdlayher/netlink's own Receive: it holds a whole dump in memory, its
// default peek keeps the kernel's datagrams at 4 KiB (8 times the system
// calls), and from v1.10 it waits for ever on the two conntrack replies that
// carry NLM_F_MULTI without an NLMSG_DONE. Here one 32 KiB buffer is reused,
// which is also the largest datagram the kernel ever makes for a dump
// (netlink_dump, net/netlink/af_netlink.c).
package nfnl
