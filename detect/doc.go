// Package detect finds known troubles in what conntrack and sockdiag show of a
// host.
//
// A detector is a pure function: a Host, which is rows and an instant, goes in,
// and Findings come out, the same for the same rows. Where the rows come from
// does not matter: a live kernel, a file of last night, a test.
//
//	host := detect.Host{Now: time.Now(), Flows: flows.Flows, Sockets: sockets.Sockets, …}
//	for _, f := range detect.Find(host, detect.Ghosts{}, detect.LostFlows{}) {
//		fmt.Print(f.Text())
//	}
//
// Each is a Detector, which looks at rows one by one: Find has any set of them
// look at the rows of a Host, and Scan at rows as they are read, in memory that
// does not grow with the rows but by what the detectors keep. All lists them,
// with what each Needs to see. Rate counts events instead of rows, and Repeat
// what was found again and again.
//
// Package snapshot fills a Host from /proc, and keeps all of it in a directory.
//
// Rows of a live host were not read at one instant. Read the sockets first and
// the flows after them for LostFlows, the other way round for Ghosts, and
// confirm a finding with a second look before acting on it.
package detect
