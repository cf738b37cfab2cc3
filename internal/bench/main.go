package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func main() {
	n := flag.Int("n", 100_000, "entries in the table, as far as nf_conntrack_max allows")
	rounds := flag.Int("rounds", 5, "how often each piece of work is done")
	only := flag.String("only", "", "only the work whose name matches `REGEXP`, and what it is compared with")
	child := flag.String("child", "", "do the work of this `NAME` here, and print what it took (for itself)")
	flag.Parse()
	err := errors.New("-n and -rounds must be 1 or more, and nothing may follow the flags")
	switch {
	case *child != "":
		err = measure(*child, *n)
	case *n > 0 && *rounds > 0 && flag.NArg() == 0:
		err = run(*n, *rounds, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(n, rounds int, only string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	network, err := lab.Open()
	if err != nil {
		return err
	}
	defer network.Close()
	t, err := newTable(network, n)
	if err != nil {
		return err
	}
	fmt.Println(t)
	results, err := turns(ctx, t, rounds, chosen)
	switch {
	case err != nil:
		return err
	case len(results) == 0:
		return fmt.Errorf("no work has a name that matches %q", only)
	}
	return write(os.Stdout, len(t.flows), results)
}

// turns does each piece of work once a round. The table is filled before each
// that finds it empty.
func turns(ctx context.Context, t *table, rounds int, only *regexp.Regexp) (map[string][]result, error) {
	results := make(map[string][]result)
	for range rounds {
		for _, w := range works {
			if !only.MatchString(w.name) && !compared(w.name, only) {
				continue
			}
			if err := t.fill(ctx); err != nil {
				return nil, err
			}
			r, err := t.child(ctx, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			results[w.name] = append(results[w.name], r)
		}
	}
	return results, nil
}

// compared reports whether any work that was chosen is compared with this.
func compared(name string, only *regexp.Regexp) bool {
	for _, w := range works {
		if w.reference == name && only.MatchString(w.name) {
			return true
		}
	}
	return false
}
