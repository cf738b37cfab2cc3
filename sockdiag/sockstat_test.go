package sockdiag

import (
	"testing"
	"testing/fstest"
)

func TestCountTCP(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	const v4 = "sockets: used 11\nTCP: inuse 100 orphan 16 tw 200 alloc 17 mem 41\nUDP: inuse 5 mem 0\n"
	for name, c := range map[string]struct {
		net  fstest.MapFS
		want int
	}{
		"both families": {fstest.MapFS{"sockstat": file(v4), "sockstat6": file("TCP6: inuse 20\nUDP6: inuse 7\n")}, 330},
		"no IPv6":       {fstest.MapFS{"sockstat": file(v4)}, 309},
		"nothing":       {nil, 0},
		"no numbers":    {fstest.MapFS{"sockstat": file("TCP: inuse x tw\n\nTCP:\n")}, 0},
		"negative":      {fstest.MapFS{"sockstat": file("TCP: inuse -3 tw 0\n")}, 0},
		"absurd":        {fstest.MapFS{"sockstat": file("TCP: inuse 2000000000 tw 0\n")}, mostExpected},
	} {
		if got := countTCP(c.net); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestEveryTCP(t *testing.T) {
	for q, want := range map[Query]bool{
		{}:                                   true,
		{Info: true, Memory: true}:           true,
		{Protocol: TCP, States: allStates}:   true,
		{States: allStates &^ (1 << Listen)}: false,
		{Protocol: UDP}:                      false,
		{Family: IPv4}:                       false,
		{LocalPort: 80}:                      false,
		{RemotePort: 80}:                     false,
	} {
		if got := q.everyTCP(); got != want {
			t.Errorf("%+v: %v, want %v", q, got, want)
		}
	}
}
