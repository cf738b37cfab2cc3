package conntrack_test

import (
	"context"
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/conntrack"
)

// A Mirror answers at once, however large the table is.
func ExampleMirror() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := conntrack.Dial(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	m := conntrack.NewMirror(c, nil)
	go func() { fmt.Println(m.Run(ctx)) }()
	if err := m.Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for source, n := range m.Sources() {
		if n > 60 {
			fmt.Println(source, "has", n, "entries")
		}
	}
}
