package main

import (
	"io"
	"slices"
	"testing"
	"time"
)

func TestParseFlags(t *testing.T) {
	o, err := parseFlags([]string{"-kernels", "6.1, 6.12", "-run", "./x -a", "-run", "./y", "./conntrack", "./sockdiag"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ got, want []string }{
		{o.kernels, []string{"6.1", "6.12"}},
		{o.programs, []string{"./x -a", "./y"}},
		{o.packages, []string{"./conntrack", "./sockdiag"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	if o.timeout != 10*time.Minute || o.parallel != 1 {
		t.Errorf("timeout %v, parallel %d", o.timeout, o.parallel)
	}
}

func TestParseFlagsRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-kernels", "6"}, {"-kernels", "6.1,6.1"}, {"-kernels", "../6.1"}, {"-kernels", ""}, {"-parallel", "0"}, {"-timeout", "0s"}, {"-run", " "}, {"-nosuch"},
	} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("no error for %q", args)
		}
	}
}
