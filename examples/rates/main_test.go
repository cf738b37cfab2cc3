package main

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/program"
)

func TestMain(m *testing.M) { program.Main(m, main) }
