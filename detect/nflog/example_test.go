package nflog_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log"

	"github.com/connsleuth/connsleuth/detect/nflog"
	"github.com/connsleuth/connsleuth/detect/packet"
)

// What to do with what Packets returns.
func Example() {
	// r, err := nflog.Listen(&nflog.Config{Groups: []uint16{50}})
	// …
	// defer r.Close()
	// packets := r.Packets(ctx)
	packets := recorded()

	for p, err := range packets {
		var lost *nflog.Lost
		switch {
		case errors.As(err, &lost):
			fmt.Println("missing:", lost.Count) // a fact; ranging goes on
		case err != nil:
			log.Fatal(err)
		default:
			h, _ := packet.Decode(p.Payload)
			fmt.Printf("%v %s%v (local socket: %t)\n", p.Hook, p.Prefix, h, p.HasUID)
		}
	}
	// Output:
	// input rejected: 192.0.2.2:51266 > 192.0.2.1:443 TCP SYN (local socket: false)
	// missing: 3
	// input rejected: 192.0.2.2:51266 > 192.0.2.1:443 TCP RST (local socket: true)
}

// recorded is what a Reader returned once.
func recorded() iter.Seq2[nflog.Packet, error] {
	const addresses = "c0000202" + "c0000201"
	syn, _ := hex.DecodeString("450000280000400040060000" + addresses + "c84201bb0fe9fc930000000050020000" + "00000000")
	rst, _ := hex.DecodeString("450000280000400040060000" + addresses + "c84201bb0fe9fc930000000050040000" + "00000000")
	return func(yield func(nflog.Packet, error) bool) {
		_ = yield(nflog.Packet{Hook: nflog.Input, Prefix: "rejected: ", Payload: syn}, nil) &&
			yield(nflog.Packet{}, &nflog.Lost{Count: 3}) &&
			yield(nflog.Packet{Hook: nflog.Input, Prefix: "rejected: ", Seq: 4, HasUID: true, Payload: rst}, nil)
	}
}
