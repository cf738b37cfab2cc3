package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// The attributes of a request (enum nfulnl_attr_config).
const (
	cfgCmd       = 1 // NFULA_CFG_CMD, u8
	cfgMode      = 2 // NFULA_CFG_MODE, struct nfulnl_msg_config_mode
	cfgTimeout   = 4 // NFULA_CFG_TIMEOUT, be32
	cfgThreshold = 5 // NFULA_CFG_QTHRESH, be32
	cfgFlags     = 6 // NFULA_CFG_FLAGS, be16

	cmdBind    = 1 // NFULNL_CFG_CMD_BIND
	copyPacket = 2 // NFULNL_COPY_PACKET

	flagSequence  = 1 // NFULNL_CFG_F_SEQ
	flagGlobal    = 2 // NFULNL_CFG_F_SEQ_GLOBAL
	flagConntrack = 4 // NFULNL_CFG_F_CONNTRACK
)

// own reads all groups from one socket, without allocating.
type own struct {
	reader   *Reader
	conn     *nfnl.Conn
	stream   *nfnl.Stream
	groups   map[uint16]*sequence
	prefixes *prefixes
	held     []byte // a message taken from stream and not yielded
}

func listenOwn(cfg *Config, r *Reader) (source, error) {
	conn, err := nfnl.Dial(nfnl.Netfilter, &nfnl.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, err
	}
	s, err := bindOwn(conn, cfg, r)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// roomy is more than a message has besides its payload: 200 bytes, a prefix of
// 128 and a conntrack entry.
const roomy = 8 << 10

func bindOwn(conn *nfnl.Conn, cfg *Config, r *Reader) (*own, error) {
	stream, err := conn.Stream(nfnl.ListenConfig{
		// The answers need room beside the packets, however little of it is
		// wanted later.
		ReadBuffer: max(cfg.ReadBuffer, defaultReadBuffer),
		Datagram:   int(min(cfg.Snaplen, maxSnaplen)) + roomy,
	})
	if err != nil {
		return nil, err
	}
	o := &own{reader: r, conn: conn, stream: stream, groups: make(map[uint16]*sequence), prefixes: newPrefixes()}
	for _, g := range cfg.Groups {
		if err := stream.Do(bindRequest(cfg, g)); err != nil {
			return nil, fmt.Errorf("group %d: %w", g, explainBind(stream, err))
		}
		o.groups[g] = &sequence{group: g}
	}
	return o, stream.SetReadBuffer(cfg.ReadBuffer)
}

// bindRequest binds a group and sets it up, all in one: the kernel looks at the
// command first (nfulnl_recv_config).
func bindRequest(cfg *Config, group uint16) nfnl.Message {
	flags := uint16(flagSequence | flagGlobal)
	if cfg.Conntrack != WithoutConntrack {
		flags |= flagConntrack
	}
	b := nfnl.NewBuilder(subsystem<<8|opConfig, 0)
	b.Raw([]byte{0, 0, byte(group >> 8), byte(group)}) // struct nfgenmsg
	b.U8(cfgCmd, cmdBind)
	b.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, cfg.Snaplen), copyPacket, 0))
	b.U32(cfgTimeout, cfg.centiseconds())
	b.U32(cfgThreshold, cfg.Threshold)
	b.U16(cfgFlags, flags)
	return b.Message()
}

// explainBind says what the kernel's refusal to bind means. EPERM has two
// meanings, which a request tells apart that does nothing: the kernel takes no
// packets from user space (nfulnl_recv_unsupp).
func explainBind(stream *nfnl.Stream, err error) error {
	if errors.Is(err, syscall.EPERM) {
		nothing := nfnl.NewNetfilter(subsystem, opPacket, 0, 0).Message()
		if errors.Is(stream.Do(nothing), syscall.EPERM) {
			return fmt.Errorf("%w: %w", errNoCapability, err)
		}
	}
	return explain(err)
}

// What the kernel's refusals mean.
var (
	errNoCapability = errors.New("needs CAP_NET_ADMIN in the network namespace (run as root, or setcap cap_net_admin+ep the program)")
	errNoModule     = errors.New("kernel without the module nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)")
	errTaken        = errors.New("another process listens on this group in this network namespace (see /proc/net/netfilter/nfnetlink_log)")
	errNoGlue       = errors.New("conntrack data in NFLOG needs a kernel with CONFIG_NETFILTER_NETLINK_GLUE_CT")
)

// explain says what the refusal of a request about a group means.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: %w", errTaken, err)
	case errors.Is(err, syscall.EEXIST): // it came between the kernel's look and its bind
		return fmt.Errorf("%w: %w", errTaken, syscall.EPERM)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w: %w: %w", errNoModule, err, errors.ErrUnsupported)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", errNoGlue, err)
	}
	return err
}

func (o *own) Close() error { return o.conn.Close() }

func (o *own) packets(ctx context.Context, yield func(Packet, error) bool) {
	if held := o.held; held != nil {
		o.held = nil
		if !o.packet(ctx, held, yield) {
			return
		}
	}
	for m, err := range o.stream.All(ctx) {
		switch {
		case err != nil:
			if !yield(Packet{}, told(err)) {
				return
			}
		case m.Type == typePacket && !o.packet(ctx, m.Data, yield):
			return
		}
	}
}

// packet yields one, and before it what its number reveals. It reports whether
// to go on.
func (o *own) packet(ctx context.Context, message []byte, yield func(Packet, error) bool) bool {
	if err := o.reader.over(ctx); err != nil {
		o.held = message
		yield(Packet{}, err)
		return false
	}
	p, numbered, ok := decode(message, o.prefixes)
	if !ok {
		return true // its number will be missing
	}
	if group := o.groups[p.Group]; numbered && group != nil {
		if lost := group.advance(p.Seq); lost != nil && !yield(Packet{}, lost) {
			o.held = message // its number has been seen: that of a packet twice reveals nothing
			return false
		}
	}
	return yield(p, nil)
}

// told is what a range is told of an error of the stream.
func told(err error) error {
	switch {
	case errors.Is(err, nfnl.ErrOverrun):
		return &Lost{Overrun: true}
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("nflog: %w", err)
}
