package snapshot_test

import (
	"fmt"
	"log"
	"os"

	"github.com/connsleuth/connsleuth/detect"
	"github.com/connsleuth/connsleuth/detect/snapshot"
)

// A directory of saved text is looked at with all detectors.
func ExampleOpen() {
	s, err := snapshot.Open(os.DirFS("testdata/ghost"))
	if err != nil {
		log.Fatal(err)
	}
	sees, err := s.Sees()
	if err != nil {
		log.Fatal(err)
	}
	detectors, _ := detect.Seeing(sees, detect.All()...)
	found, err := detect.Scan(s.Host, s.Sockets, s.Flows, detectors...)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range found {
		if f.Severity == detect.Critical {
			fmt.Println(f.Detector, f.Subject)
		}
	}
	for _, f := range s.Files {
		if f.Unused != "" {
			fmt.Printf("%s: %s\n", f.Name, f.Unused)
		}
	}
	// Output:
	// Audit net.ipv4.tcp_tw_recycle
	// Ghosts 10.1.32.70:9102 > 10.1.41.192:51522
	// notes.txt: no line of it is known
}
