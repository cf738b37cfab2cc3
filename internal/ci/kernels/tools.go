package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tools are the paths of the programs that this one needs.
type tools struct {
	qemu, busybox, cpio, depmod string

	programs []string // that go into the machines
}

// programs are what tests compare with, or advise, by their packages, and a shell,
// since that of busybox takes its own programs first. What loads plugins, as iptables
// does, is left out.
var programs = map[string]string{
	"conntrack": "conntrack", "ip": "iproute2", "ipset": "ipset", "nft": "nftables", "prlimit": "util-linux", "sh": "dash", "ss": "iproute2", "traceroute": "traceroute",
}

var aptEnv = []string{"DEBIAN_FRONTEND=noninteractive"}

// findTools finds the programs, and as root installs those that are missing.
func findTools(ctx context.Context) (tools, error) {
	t, missing := lookTools()
	if len(missing) == 0 {
		return t, nil
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	how := "apt-get update && apt-get " + strings.Join(install, " ")
	if !canInstall() {
		return t, fmt.Errorf("missing packages: %s; install them as root: %s", strings.Join(missing, " "), how)
	}
	note("%s", how)
	if err := aptGet(ctx, "", "update"); err != nil {
		return t, err
	}
	if err := aptGet(ctx, "", install...); err != nil {
		return t, err
	}
	if t, missing = lookTools(); len(missing) > 0 {
		return t, fmt.Errorf("still missing after %s: %s", how, strings.Join(missing, " "))
	}
	return t, nil
}

// lookTools returns the programs found and the Debian packages of the others.
func lookTools() (t tools, missing []string) {
	for _, need := range []struct {
		path    *string
		program string
		pkg     string
		check   func(path string) error
	}{
		{&t.qemu, "qemu-system-x86_64", "qemu-system-x86", nil},
		{&t.busybox, "busybox", "busybox-static", checkStatic},
		{&t.cpio, "cpio", "cpio", nil},
		{&t.depmod, "depmod", "kmod", nil},
	} {
		path, err := lookProgram(need.program)
		if err == nil && need.check != nil {
			err = need.check(path)
		}
		if err != nil {
			missing = append(missing, need.pkg)
		}
		*need.path = path
	}
	for name, pkg := range programs {
		path, err := lookProgram(name)
		if err != nil {
			missing = append(missing, pkg)
		}
		t.programs = append(t.programs, path)
	}
	slices.Sort(missing)
	return t, slices.Compact(missing)
}

// lookProgram also looks where the PATH of ordinary users does not.
func lookProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// checkStatic wants a program that runs without any library.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return errors.New(path + " is dynamically linked")
	}
	return nil
}

func canInstall() bool {
	_, err := exec.LookPath("apt-get")
	return err == nil && os.Geteuid() == 0
}

// aptGet waits for another apt-get that holds the lock. The sandbox user of
// downloads could not write into a private directory.
func aptGet(ctx context.Context, dir string, args ...string) error {
	args = append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)
	if os.Geteuid() == 0 {
		args = append(args, "-o", "APT::Sandbox::User=root")
	}
	_, err := output(ctx, dir, aptEnv, "apt-get", args...)
	return err
}
