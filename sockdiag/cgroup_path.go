package sockdiag

import "strings"

// ParseCgroup reads the path of a cgroup below the root of its hierarchy: what
// systemd, Docker, Podman, containerd, CRI-O, Kubernetes and LXC put in it.
func ParseCgroup(path string) Cgroup {
	c := Cgroup{Path: path}
	rest := c.units(strings.Split(strings.Trim(path, "/"), "/"))
	parent := ""
	for _, name := range rest {
		name = unescape(name)
		c.pod(name)
		c.container(parent, name)
		parent = name
	}
	return c
}

// units finds the units: the first component that is no slice, and in that of a
// user's manager the next such. It returns the components where a container may
// be: all of them.
func (c *Cgroup) units(names []string) []string {
	unit := &c.Unit
	for _, name := range names {
		name = unescape(name)
		if strings.HasSuffix(name, ".slice") {
			continue
		}
		if !isUnit(name) {
			break
		}
		*unit = name
		if unit == &c.UserUnit || !strings.HasPrefix(name, "user@") {
			break
		}
		unit = &c.UserUnit
	}
	return names
}

// isUnit reports whether a cgroup's name is a unit's that has processes.
func isUnit(name string) bool {
	for _, suffix := range []string{".service", ".scope", ".socket", ".mount", ".swap"} {
		if strings.HasSuffix(name, suffix) && len(name) > len(suffix) {
			return true
		}
	}
	return false
}

// unescape undoes cg_escape of systemd, which puts a "_" before a name that the
// kernel could take for its own.
func unescape(name string) string { return strings.TrimPrefix(name, "_") }

// pod finds a Kubernetes pod: "kubepods-burstable-podUID.slice", with "_" for
// "-" in the UID, of the systemd driver, or "podUID" below "kubepods".
func (c *Cgroup) pod(name string) {
	if slice, ok := strings.CutSuffix(name, ".slice"); ok && strings.HasPrefix(name, "kubepods") {
		if _, uid, ok := strings.Cut(slice, "-pod"); ok {
			c.Pod = strings.ReplaceAll(uid, "_", "-")
		}
		return
	}
	if uid, ok := strings.CutPrefix(name, "pod"); ok && strings.Contains(c.Path, "/kubepods/") && len(uid) >= 32 {
		c.Pod = uid
	}
}

// scopes are the prefixes of containers' scopes, and of their parents where
// systemd is not used, and who gives them.
var scopes = map[string]string{
	"docker": "docker", "libpod": "podman", "cri-containerd": "containerd", "crio": "cri-o", "nerdctl": "nerdctl",
}

// container finds the innermost container: "docker-ID.scope", "libpod-ID", a
// bare ID in a directory of the runtime or a pod, or a name of lxc.
func (c *Cgroup) container(parent, name string) {
	base := strings.TrimSuffix(name, ".scope")
	if isContainerID(base) {
		c.Runtime, c.Container = scopes[parent], base
		return
	}
	if i := strings.LastIndexByte(base, '-'); i > 0 && isContainerID(base[i+1:]) {
		// "libpod-conmon-ID" and "crio-conmon-ID" are those who watch it.
		if runtime, ok := scopes[base[:i]]; ok {
			c.Runtime, c.Container = runtime, base[i+1:]
		}
		return
	}
	if payload, ok := strings.CutPrefix(name, "lxc.payload."); ok {
		c.Runtime, c.Container = "lxc", payload
	}
}

// isContainerID reports whether s is 64 hexadecimal digits.
func isContainerID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
