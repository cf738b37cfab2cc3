package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func main() {
	n := flag.Int("n", 100_000, "entries and sockets, as far as nf_conntrack_max and the limit of open files allow")
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
	raiseFiles()
	if err := lab.Enter(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	met := false
	for _, s := range subjects {
		if !slices.ContainsFunc(s.works, func(w work) bool { return chosen.MatchString(w.name) }) {
			continue
		}
		if met {
			fmt.Println()
		}
		met = true
		if err := s.compare(ctx, n, rounds, chosen); err != nil {
			return err
		}
	}
	if !met {
		return fmt.Errorf("no work has a name that matches %q", only)
	}
	return nil
}

// compare prints one table.
func (s subject) compare(ctx context.Context, n, rounds int, only *regexp.Regexp) error {
	p, err := s.open(n)
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // the process ends soon
	results, err := s.turns(ctx, p, rounds, only)
	if err != nil {
		return err
	}
	fmt.Println(p)
	return s.write(os.Stdout, p.size(), results)
}

// turns does each piece of work once a round. The place is filled before each
// that finds it empty.
func (s subject) turns(ctx context.Context, p place, rounds int, only *regexp.Regexp) (map[string][]result, error) {
	results := make(map[string][]result)
	for range rounds {
		for _, w := range s.works {
			if !only.MatchString(w.name) && !s.compared(w.name, only) {
				continue
			}
			if err := p.fill(ctx); err != nil {
				return nil, err
			}
			r, err := child(ctx, p, w)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			results[w.name] = append(results[w.name], r)
		}
	}
	return results, nil
}

// compared reports whether any work that was chosen is compared with this.
func (s subject) compared(name string, only *regexp.Regexp) bool {
	for _, w := range s.works {
		if w.reference == name && only.MatchString(w.name) {
			return true
		}
	}
	return false
}
