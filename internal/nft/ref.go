package nft

// RuleRef names a rule of a network namespace.
type RuleRef struct {
	Family       Family
	Table, Chain string
	Handle       uint64 // unique in its table, and never used again there
}
