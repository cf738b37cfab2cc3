package nft

import (
	"encoding/binary"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	exprName = 1 // NFTA_EXPR_NAME
	exprData = 2 // NFTA_EXPR_DATA
	listElem = 1 // NFTA_LIST_ELEM

	regVerdict = 0 // NFT_REG_VERDICT
	reg1       = 1 // NFT_REG_1
	reg2       = 2 // NFT_REG_2

	dataValue   = 1 // NFTA_DATA_VALUE
	dataVerdict = 2 // NFTA_DATA_VERDICT
)

// Header bases (enum nft_payload_bases).
const (
	linkHeader      = 0 // NFT_PAYLOAD_LL_HEADER
	networkHeader   = 1 // NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = 2 // NFT_PAYLOAD_TRANSPORT_HEADER
)

// Keys of the meta expression (enum nft_meta_keys).
const (
	metaIIFName = 6  // NFT_META_IIFNAME
	metaOIFName = 7  // NFT_META_OIFNAME
	metaNFTrace = 12 // NFT_META_NFTRACE
	metaNFProto = 15 // NFT_META_NFPROTO
	metaL4Proto = 16 // NFT_META_L4PROTO
)

// exprs writes the expressions of one rule. Loads go to register 1 and
// comparisons are with it.
type exprs struct{ *nfnl.Builder }

// add writes one expression: NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }.
func (e exprs) add(name string, data func()) {
	e.Nested(listElem, func() {
		e.String(exprName, name)
		e.Nested(exprData, data)
	})
}

func (e exprs) meta(key uint32) {
	e.add("meta", func() {
		e.U32(1, reg1) // NFTA_META_DREG
		e.U32(2, key)  // NFTA_META_KEY
	})
}

func (e exprs) payload(base, offset, length uint32) {
	e.add("payload", func() {
		e.U32(1, reg1)   // NFTA_PAYLOAD_DREG
		e.U32(2, base)   // NFTA_PAYLOAD_BASE
		e.U32(3, offset) // NFTA_PAYLOAD_OFFSET
		e.U32(4, length) // NFTA_PAYLOAD_LEN
	})
}

// Keys of the ct expression (enum nft_ct_keys).
const (
	ctState     = 0  // NFT_CT_STATE: bits, in the host's byte order
	ctDirection = 1  // NFT_CT_DIRECTION: one byte
	ctStatus    = 2  // NFT_CT_STATUS: bits, in the host's byte order
	ctMark      = 3  // NFT_CT_MARK
	ctZone      = 17 // NFT_CT_ZONE: 16 bits, in the host's byte order
)

func (e exprs) ct(key uint32) {
	e.add("ct", func() {
		e.U32(1, reg1) // NFTA_CT_DREG
		e.U32(2, key)  // NFTA_CT_KEY
	})
}

// limit counts packets, in seconds.
func (e exprs) limit(l Limit) {
	e.add("limit", func() {
		e.U64(1, l.PerSecond) // NFTA_LIMIT_RATE
		e.U64(2, 1)           // NFTA_LIMIT_UNIT
		e.U32(3, l.burst())   // NFTA_LIMIT_BURST
		e.U32(4, 0)           // NFTA_LIMIT_TYPE: NFT_LIMIT_PKTS
		e.U32(5, 0)           // NFTA_LIMIT_FLAGS
	})
}

func (l Limit) burst() uint32 {
	if l.Burst == 0 {
		return 5
	}
	return l.Burst
}

// trace sets the packet's nftrace bit.
func (e exprs) trace() {
	e.load(reg1, []byte{1})
	e.add("meta", func() {
		e.U32(2, metaNFTrace) // NFTA_META_KEY
		e.U32(3, reg1)        // NFTA_META_SREG
	})
}

// mask keeps the bits of register 1 that are set in m.
func (e exprs) mask(m []byte) {
	e.add("bitwise", func() {
		e.U32(1, reg1)                      // NFTA_BITWISE_SREG
		e.U32(2, reg1)                      // NFTA_BITWISE_DREG
		e.U32(3, uint32(len(m)))            // NFTA_BITWISE_LEN
		e.data(4, dataValue, m)             // NFTA_BITWISE_MASK
		e.data(5, dataValue, zeros(len(m))) // NFTA_BITWISE_XOR
	})
}

const (
	equal   = 0 // NFT_CMP_EQ
	unequal = 1 // NFT_CMP_NEQ
)

func (e exprs) compare(op uint32, v []byte) {
	e.add("cmp", func() {
		e.U32(1, reg1)          // NFTA_CMP_SREG
		e.U32(2, op)            // NFTA_CMP_OP
		e.data(3, dataValue, v) // NFTA_CMP_DATA
	})
}

// data writes a struct nft_data attribute.
func (e exprs) data(typ, kind uint16, v []byte) {
	e.Nested(typ, func() { e.Bytes(kind, v) })
}

// load puts constant bytes into a register.
func (e exprs) load(reg uint32, v []byte) {
	e.add("immediate", func() {
		e.U32(1, reg)           // NFTA_IMMEDIATE_DREG
		e.data(2, dataValue, v) // NFTA_IMMEDIATE_DATA
	})
}

// decide ends the rule with NF_ACCEPT or NF_DROP.
func (e exprs) decide(code uint32) {
	e.add("immediate", func() {
		e.U32(1, regVerdict) // NFTA_IMMEDIATE_DREG
		e.Nested(2, func() { // NFTA_IMMEDIATE_DATA
			e.Nested(dataVerdict, func() { e.U32(1, code) }) // NFTA_VERDICT_CODE
		})
	})
}

func (e exprs) reject(typ uint32, code uint8) {
	e.add("reject", func() {
		e.U32(1, typ) // NFTA_REJECT_TYPE
		e.U8(2, code) // NFTA_REJECT_ICMP_CODE
	})
}

// counter starts at zero: both attributes may be left out.
func (e exprs) counter() { e.add("counter", func() {}) }

func (e exprs) log(l Log) {
	e.add("log", func() {
		e.U16(1, l.Group) // NFTA_LOG_GROUP
		if l.Prefix != "" {
			e.String(2, l.Prefix) // NFTA_LOG_PREFIX
		}
		if l.Snaplen != 0 {
			e.U32(3, l.Snaplen) // NFTA_LOG_SNAPLEN
		}
		if l.Threshold != 0 {
			e.U16(4, l.Threshold) // NFTA_LOG_QTHRESHOLD
		}
	})
}

// Kinds of the nat expression (enum nft_nat_types).
const (
	snat = 0 // NFT_NAT_SNAT
	dnat = 1 // NFT_NAT_DNAT
)

// nat takes the address from register 1 and, if there is one, the port from
// register 2.
func (e exprs) nat(kind uint32, family Family, port bool) {
	e.add("nat", func() {
		e.U32(1, kind)           // NFTA_NAT_TYPE
		e.U32(2, uint32(family)) // NFTA_NAT_FAMILY
		e.U32(3, reg1)           // NFTA_NAT_REG_ADDR_MIN
		if port {
			e.U32(5, reg2) // NFTA_NAT_REG_PROTO_MIN
		}
	})
}

// redirect takes the port, if there is one, from register 1.
func (e exprs) redirect(port bool) {
	e.add("redir", func() {
		if port {
			e.U32(1, reg1) // NFTA_REDIR_REG_PROTO_MIN
		}
	})
}

func zeros(n int) []byte { return make([]byte, n) }

func big16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
