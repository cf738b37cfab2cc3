package bantest_test

import (
	"fmt"
	"time"

	"github.com/connsleuth/connsleuth/ban/bantest"
)

// A backend says what it cannot do, and the suite then wants a refusal.
func ExampleSuite() {
	s := bantest.Suite{Longest: 2147483 * time.Second, No: bantest.NoPrefixes | bantest.NoReason}
	fmt.Println(s.Longest, s.No&bantest.NoPrefixes != 0, s.No&bantest.NoIPv6 != 0)
	// Output: 596h31m23s true false
}
