package reject

import "fmt"

// before reports that the kernel is known to be older than Linux major.minor.
// Its release only colours advice: what a kernel does is told by what it did.
func (e *known) before(major, minor int) bool {
	a, b, ok := release(e.Kernel)
	return ok && (a < major || a == major && b < minor)
}

// since reports that the kernel is known to be Linux major.minor or later.
func (e *known) since(major, minor int) bool {
	_, _, ok := release(e.Kernel)
	return ok && !e.before(major, minor)
}

// release reads a release such as "6.12.0-1-amd64".
func release(text string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(text, "%d.%d", &major, &minor)
	return major, minor, n == 2 && err == nil && major > 0 && minor >= 0
}

// reasonMissing notes that the kernel's own reason would settle what is open.
func (e *known) reasonMissing(v *Verdict) {
	fact := "the kernel's reason for the packet (Config.Reasons)"
	if e.before(6, 7) {
		fact += "; Linux before 6.7 gives none for what is of no connection"
	}
	proto := uint8(255)
	if e.tcp() {
		proto = e.Packet.Value.Proto
	}
	v.missing(fact, fmt.Sprintf("sysctl net.netfilter.nf_conntrack_log_invalid=%d", proto))
}
