// Package nft writes small nftables rule sets and reads their counters back:
// the tables, base chains and handful of expressions this project needs, over
// nfnetlink (linux/netfilter/nf_tables.h).
//
//	c, err := nft.Dial("")
//	…
//	err = c.Apply(ctx, nft.Table{
//		Family: nft.INet, Name: "lab",
//		Chains: []nft.Chain{{
//			Name: "input", Hook: nft.Input,
//			Rules: []nft.Rule{
//				{CTState: nft.Established | nft.Related, Verdict: nft.Accept},
//				{Proto: nft.TCP, DstPort: 80, CTState: nft.New, Verdict: nft.Accept},
//				{Counter: true, Verdict: nft.RejectAdminProhibited},
//			},
//		}},
//	})
//
// Tables, chains and rules are plain values. Apply makes the kernel's tables
// equal to them in one transaction, all or nothing. What the kernel could not
// carry out is refused before it is asked, and every error names its object:
// "nft: rule 3 of chain input of table inet lab: …". Rules count from 1.
//
// Own is Apply for a table that the kernel removes when the process ends,
// however it ends. Ruleset reads the tables of everybody, with their rules as
// text and as facts, and changes nothing. Traces tells which rules a packet met,
// such as the one that refused it.
//
//   - nft.go, rule.go and verdict.go are the values.
//   - check.go refuses the impossible.
//   - encode.go, act.go and expr.go write them as messages and expressions.
//   - conn.go and own.go send them; counters.go reads back.
//   - ruleset.go is what is found in the kernel; parse.go and regs.go take its
//     rules apart, text.go (with field.go, value.go, statement.go, special.go,
//     xt.go, names.go) and facts.go say what they are.
//   - trace.go and headers.go are what a packet meets; wire_trace.go decodes it.
//   - legacy.go knows of rules that are not in nftables.
package nft
