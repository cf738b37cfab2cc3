package nft

import (
	"encoding/binary"

	"github.com/connsleuth/connsleuth/internal/nfnl"
)

const (
	subsystem = 10 // NFNL_SUBSYS_NFTABLES
	inet      = 1  // NFPROTO_INET
	genLen    = 4  // struct nfgenmsg
	headerLen = 16 // struct nlmsghdr
	attrLen   = 4  // struct nlattr

	batchBegin = 0x10 // NFNL_MSG_BATCH_BEGIN
	batchEnd   = 0x11 // NFNL_MSG_BATCH_END
)

// Messages (enum nf_tables_msg_types).
const (
	newTable   = 0  // NFT_MSG_NEWTABLE
	newChain   = 3  // NFT_MSG_NEWCHAIN
	delChain   = 5  // NFT_MSG_DELCHAIN
	newRule    = 6  // NFT_MSG_NEWRULE
	delRule    = 8  // NFT_MSG_DELRULE
	newSet     = 9  // NFT_MSG_NEWSET
	getSet     = 10 // NFT_MSG_GETSET
	newSetElem = 12 // NFT_MSG_NEWSETELEM
	getSetElem = 13 // NFT_MSG_GETSETELEM
	delSetElem = 14 // NFT_MSG_DELSETELEM
)

const (
	tableName  = 1 // NFTA_TABLE_NAME
	tableFlags = 2 // NFTA_TABLE_FLAGS

	chainTable  = 1 // NFTA_CHAIN_TABLE
	chainName   = 3 // NFTA_CHAIN_NAME
	chainHook   = 4 // NFTA_CHAIN_HOOK
	chainPolicy = 5 // NFTA_CHAIN_POLICY
	chainType   = 7 // NFTA_CHAIN_TYPE

	hookNumber   = 1 // NFTA_HOOK_HOOKNUM
	hookPriority = 2 // NFTA_HOOK_PRIORITY

	ruleTable       = 1 // NFTA_RULE_TABLE
	ruleChain       = 2 // NFTA_RULE_CHAIN
	ruleExpressions = 4 // NFTA_RULE_EXPRESSIONS

	setTable   = 1  // NFTA_SET_TABLE
	setName    = 2  // NFTA_SET_NAME
	setFlags   = 3  // NFTA_SET_FLAGS
	setKeyType = 4  // NFTA_SET_KEY_TYPE
	setKeyLen  = 5  // NFTA_SET_KEY_LEN
	setDesc    = 9  // NFTA_SET_DESC
	setID      = 10 // NFTA_SET_ID
	setTimeout = 11 // NFTA_SET_TIMEOUT
	setExpr    = 17 // NFTA_SET_EXPR

	descSize = 1 // NFTA_SET_DESC_SIZE

	// flagTimeout lets elements end; a set without NFT_SET_INTERVAL and with it
	// is a hash table that grows (nft_rhash).
	flagTimeout = 0x10 // NFT_SET_TIMEOUT

	// Key types are nft(8)'s own: the kernel only keeps them.
	typeIPv4 = 7
	typeIPv6 = 8

	listTable    = 1 // NFTA_SET_ELEM_LIST_TABLE
	listSet      = 2 // NFTA_SET_ELEM_LIST_SET
	listElements = 3 // NFTA_SET_ELEM_LIST_ELEMENTS
	listElem     = 1 // NFTA_LIST_ELEM

	elemKey        = 1 // NFTA_SET_ELEM_KEY
	elemTimeout    = 4 // NFTA_SET_ELEM_TIMEOUT: ms
	elemExpiration = 5 // NFTA_SET_ELEM_EXPIRATION: ms
	elemUserdata   = 6 // NFTA_SET_ELEM_USERDATA
	elemExpr       = 7 // NFTA_SET_ELEM_EXPR

	udataComment = 0 // NFTNL_UDATA_SET_ELEM_COMMENT
)

// Expressions.
const (
	exprName = 1 // NFTA_EXPR_NAME
	exprData = 2 // NFTA_EXPR_DATA

	regVerdict = 0 // NFT_REG_VERDICT
	reg1       = 1 // NFT_REG_1

	dataValue   = 1 // NFTA_DATA_VALUE
	dataVerdict = 2 // NFTA_DATA_VERDICT

	verdictCode  = 1 // NFTA_VERDICT_CODE
	verdictChain = 2 // NFTA_VERDICT_CHAIN

	codeDrop   = 0         // NF_DROP
	codeAccept = 1         // NF_ACCEPT
	codeJump   = 1<<32 - 3 // NFT_JUMP: -3

	equal  = 0 // NFT_CMP_EQ
	differ = 1 // NFT_CMP_NEQ

	networkHeader   = 1 // NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = 2 // NFT_PAYLOAD_TRANSPORT_HEADER

	metaNFProto = 15 // NFT_META_NFPROTO
	metaL4Proto = 16 // NFT_META_L4PROTO

	ctState     = 0 // NFT_CT_STATE: bits, in the host's byte order
	ctDirection = 1 // NFT_CT_DIRECTION: one byte

	untracked = 1 << 6 // NF_CT_STATE_UNTRACKED_BIT
	reply     = 1      // IP_CT_DIR_REPLY
	icmpv6    = 58     // IPPROTO_ICMPV6
)

// request is a message about a table of family inet.
func request(op uint8, how uint16) *nfnl.Builder {
	return nfnl.NewNetfilter(subsystem, op, how, inet)
}

// frame is the message that begins or ends a transaction.
func frame(typ uint16) nfnl.Message {
	m := nfnl.NewBuilder(typ, 0)
	m.Raw([]byte{0, 0, 0, subsystem}) // struct nfgenmsg with the subsystem for res_id
	return m.Message()
}

// exprs writes the expressions of one rule. Values are loaded to register 1.
type exprs struct{ *nfnl.Builder }

func (e exprs) add(name string, data func()) {
	e.Nested(listElem, func() {
		e.String(exprName, name)
		e.Nested(exprData, data)
	})
}

// load is the expression meta or ct, whose attributes have the same numbers.
func (e exprs) load(name string, key uint32) {
	e.add(name, func() {
		e.U32(1, reg1) // NFTA_META_DREG, NFTA_CT_DREG
		e.U32(2, key)  // NFTA_META_KEY, NFTA_CT_KEY
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

func (e exprs) mask(m []byte) {
	e.add("bitwise", func() {
		e.U32(1, reg1)                                                   // NFTA_BITWISE_SREG
		e.U32(2, reg1)                                                   // NFTA_BITWISE_DREG
		e.U32(3, uint32(len(m)))                                         // NFTA_BITWISE_LEN
		e.Nested(4, func() { e.Bytes(dataValue, m) })                    // NFTA_BITWISE_MASK
		e.Nested(5, func() { e.Bytes(dataValue, make([]byte, len(m))) }) // NFTA_BITWISE_XOR
	})
}

func (e exprs) compare(op uint32, v ...byte) {
	e.add("cmp", func() {
		e.U32(1, reg1)                                // NFTA_CMP_SREG
		e.U32(2, op)                                  // NFTA_CMP_OP
		e.Nested(3, func() { e.Bytes(dataValue, v) }) // NFTA_CMP_DATA
	})
}

func (e exprs) lookup(set string) {
	e.add("lookup", func() {
		e.String(1, set) // NFTA_LOOKUP_SET
		e.U32(2, reg1)   // NFTA_LOOKUP_SREG
	})
}

// decide ends the rule with a verdict; chain is where a jump goes.
func (e exprs) decide(code uint32, chain string) {
	e.add("immediate", func() {
		e.U32(1, regVerdict) // NFTA_IMMEDIATE_DREG
		e.Nested(2, func() { // NFTA_IMMEDIATE_DATA
			e.Nested(dataVerdict, func() {
				e.U32(verdictCode, code)
				if chain != "" {
					e.String(verdictChain, chain)
				}
			})
		})
	})
}

func (e exprs) log(l Log) {
	e.add("log", func() {
		e.U16(1, l.Group) // NFTA_LOG_GROUP
		if l.Prefix != "" {
			e.String(2, l.Prefix) // NFTA_LOG_PREFIX
		}
	})
}

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func big16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
