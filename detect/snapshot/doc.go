// Package snapshot keeps what detectors look at in a directory, so that an
// incident can be looked at again, elsewhere, or become a test.
//
// Record writes such a directory. Open reads one, and also one of what people
// save with the usual commands, in files of any name:
//
//	conntrack -L            or /proc/net/nf_conntrack
//	ss -tanopie             or netstat -natp, or /proc/net/tcp and tcp6
//	sysctl -a               and sysctl.conf, for settings of old kernels
//	conntrack -S            or /proc/net/stat/nf_conntrack
//	ip addr, dmesg
//	/proc/net/snmp, netstat, sockstat, sockstat6, /proc/slabinfo
//
// Each may be compressed with gzip. What a file is, its first lines tell.
//
//	s, err := snapshot.Open(os.DirFS("incident"))
//	…
//	found, err := detect.Scan(s.Host, s.Sockets, s.Flows, detectors...)
//
// It opens no sockets and takes no privilege.
package snapshot
