package main

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/bouncer/replay"
)

func TestMain(m *testing.M) { replay.Main(m, main) }
