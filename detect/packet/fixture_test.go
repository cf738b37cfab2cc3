package packet

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/connsleuth/connsleuth/internal/fixture"
)

// captures is the directory of the captured packets.
const captures = "testdata"

// capture is the packet in testdata/name.hex.
func capture(t testing.TB, name string) []byte {
	t.Helper()
	return fixture.Read(t, filepath.Join(captures, name+".hex"))
}

// plain prints every field: the String methods would leave most out.
func plain(p Packet) string {
	type header Header
	return fmt.Sprintf("%+v\nquoted %t %+v", header(p.Header), p.HasQuoted, header(p.Quoted))
}
