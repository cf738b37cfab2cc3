package lab_test

import (
	"os"
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperMode); mode != "" {
		os.Exit(helper(mode))
	}
	lab.Main(m)
}
