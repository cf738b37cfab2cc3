package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is where and how to ban. A nil *Config is the zero Config.
type Config struct {
	// NetNS is the path of the network namespace, such as /run/netns/blue or
	// /proc/1234/ns/net; empty is the namespace of the calling thread.
	NetNS string
	// Table is the name of the table, of family inet; empty is "connsleuth".
	// Nothing else may be in it.
	Table string
	// Priority of the base chains: of the chains of a hook, the kernel asks the
	// one with the lowest first. 0 is -10, before filter.
	Priority int32
	// Size is how many bans each set holds; 0 is no limit. A set that is there
	// already keeps its own.
	Size uint32
	// Ports, if there are any, are all that a ban is about: only packets to
	// them are dropped.
	Ports []Port
	// Log, if not nil, sends a copy of each dropped packet to nfnetlink_log.
	Log *Log
	// Counters makes each ban count what it drops: see Backend.Dropped. They
	// take memory for each processor, and double the time that a ban takes in
	// the kernel. Before Linux 5.17, which fails with many, there are none. A set
	// that is there already stays as it is.
	Counters bool
}

// Port is a port of this host, or of one that it forwards to after its address
// was translated.
type Port struct {
	Proto uint8 // IPPROTO_TCP 6, IPPROTO_UDP 17, IPPROTO_DCCP 33, IPPROTO_SCTP 132, IPPROTO_UDPLITE 136
	Port  uint16
}

// Log is where dropped packets go.
type Log struct {
	Group uint16 // nfnetlink_log group
	// Prefix goes with each packet: up to 127 bytes (NF_LOG_PREFIXLEN) that can
	// be printed, without quotes.
	Prefix string
}

const (
	defaultTable    = "connsleuth"
	defaultPriority = -10

	maxName   = 255 // NFT_NAME_MAXLEN without its NUL
	maxPrefix = 127 // NF_LOG_PREFIXLEN without its NUL
)

// complete fills the defaults in and refuses what cannot be.
func (c *Config) complete() (Config, error) {
	var full Config
	if c != nil {
		full = *c
	}
	if full.Table == "" {
		full.Table = defaultTable
	}
	if full.Priority == 0 {
		full.Priority = defaultPriority
	}
	full.Ports = slices.Clone(full.Ports)
	if full.Log != nil {
		log := *full.Log
		full.Log = &log
	}
	return full, full.check()
}

func (c *Config) check() error {
	if len(c.Table) > maxName || strings.ContainsRune(c.Table, 0) {
		return fmt.Errorf("table name %q: want up to %d bytes, none of them 0", c.Table, maxName)
	}
	if c.Log != nil && (len(c.Log.Prefix) > maxPrefix || clean(c.Log.Prefix) != c.Log.Prefix) {
		return fmt.Errorf("log prefix %q: want up to %d bytes that can be printed, without quotes", c.Log.Prefix, maxPrefix)
	}
	for i, p := range c.Ports {
		switch {
		case protoName(p.Proto) == "":
			return fmt.Errorf("protocol %d has no ports: want TCP 6, UDP 17, DCCP 33, SCTP 132 or UDP-Lite 136", p.Proto)
		case p.Port == 0:
			return errors.New("port 0: leave Ports empty for all packets")
		case slices.Contains(c.Ports[:i], p):
			return fmt.Errorf("port %s %d is given twice", protoName(p.Proto), p.Port)
		}
	}
	return nil
}

// protoName is nft(8)'s word for a protocol with ports.
func protoName(proto uint8) string {
	return map[uint8]string{6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}[proto]
}
