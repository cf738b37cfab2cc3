package conntrack

import (
	"fmt"
	"log"
	"testing"
)

// conntrack -S of conntrack-tools 1.4.7 on Linux 6.18.
func ExampleParseStats() {
	s, err := ParseStats("cpu=1   \tfound=0 invalid=7 insert=0 insert_failed=2 drop=2 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.CPU, s.Invalid, s.InsertFailed, s.Has(StatDrop), s.Has(StatExpectNew))
	// Output: 1 7 2 true false
}

func TestParseStats(t *testing.T) {
	for _, s := range []Stats{
		{CPU: 3, Fields: StatFound | StatDeleteList, Found: 1<<32 - 1, DeleteList: 9},
		{CPU: -1, Fields: StatDrop},
	} {
		if got, err := ParseStats(s.String()); got != s || err != nil {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	if got, err := ParseStats("cpu=0 drop=1 novel=2"); got != (Stats{Fields: StatDrop, Drop: 1}) || err != nil {
		t.Errorf("a word of a later kernel: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu=0", "novel=1", "cpu=0 drop", "cpu=x drop=1", "drop=-1", "drop=4294967296"} {
		if got, err := ParseStats(bad); got != (Stats{}) || err == nil {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}
