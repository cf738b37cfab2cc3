package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// An initramfs is the content of one: a busybox system, the kernel's modules
// and the jobs, each with its own working directory below /src, next to a copy
// of every testdata directory of the module.
type initramfs struct {
	tools  tools
	kernel kernel
	mods   moduleSet
	jobs   []job
	mark   marker
}

// write builds the tree in dir and packs it into file.
func (img *initramfs) write(ctx context.Context, dir, file string) error {
	for _, step := range []func(string) error{img.addSystem, img.addModules, img.addJobs} {
		if err := step(dir); err != nil {
			return fmt.Errorf("initramfs of %s: %w", img.kernel.series, err)
		}
	}
	for _, program := range img.tools.programs {
		if err := addProgram(ctx, dir, program); err != nil {
			return err
		}
	}
	if _, err := output(ctx, "", nil, img.tools.depmod, "-b", dir, img.kernel.release); err != nil {
		return err
	}
	return img.pack(ctx, dir, file)
}

// systemFiles are what programs look up without saying so: the resolver wants
// localhost, os/user wants root, nft the names of protocols.
var systemFiles = map[string]string{
	"etc/passwd":    "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
	"etc/group":     "root:x:0:\nnogroup:x:65534:\n",
	"etc/hosts":     "127.0.0.1 localhost\n::1 localhost\n",
	"etc/protocols": "icmp 1\ntcp 6\nudp 17\ndccp 33\nesp 50\nah 51\nipv6-icmp 58\nsctp 132\nudplite 136\n",
}

func (img *initramfs) addSystem(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"bin", "dev", "etc", "jobs", "proc", "run", "src", "sys", "tmp", "usr"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	// The kernel calls /sbin/modprobe.
	for name, target := range map[string]string{"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name, text := range systemFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(dir, "bin", "busybox"), img.tools.busybox, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "init"), []byte(img.script()), 0o755)
}

// addProgram copies a program of this machine, and the libraries that it loads. It
// comes before busybox's own of that name.
func addProgram(ctx context.Context, dir, program string) error {
	loads, err := output(ctx, "", nil, "ldd", program)
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(string(loads)) {
		if !filepath.IsAbs(word) {
			continue
		}
		err := copyFile(filepath.Join(dir, word), word, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) { // of another program
			return err
		}
	}
	return copyFile(filepath.Join(dir, "bin", filepath.Base(program)), program, 0o755)
}

func (img *initramfs) addModules(dir string) error {
	to := filepath.Join(dir, "lib", "modules", img.kernel.release)
	lists := []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"}
	for _, name := range append(lists, img.mods.files...) {
		if err := copyFile(filepath.Join(to, name), filepath.Join(img.kernel.modules(), name), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (img *initramfs) addJobs(dir string) error {
	roots := map[string]bool{}
	for _, j := range img.jobs {
		if err := copyFile(filepath.Join(dir, "jobs", j.name), j.file, 0o755); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, "src", filepath.FromSlash(j.dir)), 0o755); err != nil {
			return err
		}
		roots[j.root] = true
	}
	for root := range roots {
		if err := copyTestdata(filepath.Join(dir, "src"), root); err != nil {
			return err
		}
	}
	return nil
}

// copyTestdata copies every testdata directory of a module: tests may share
// them across packages. What the go command leaves out is left out here.
func copyTestdata(to, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == root {
			return err
		}
		if d.Name() == "testdata" {
			rel, err := filepath.Rel(root, path)
			if err == nil {
				err = os.CopyFS(filepath.Join(to, rel), os.DirFS(path))
			}
			return cmp.Or(err, fs.SkipDir)
		}
		_, nested := os.Stat(filepath.Join(path, "go.mod"))
		if nested == nil || strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") {
			return fs.SkipDir
		}
		return nil
	})
}

// script is /init. Everything that a job left running is killed before the
// next one starts: kill spares the shell itself, which is process 1.
func (img *initramfs) script() string {
	var b strings.Builder
	fmt.Fprintf(&b, `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/tmp CONNSLEUTH_LAB=require CONNSLEUTH_EMULATED=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
load() {
	modprobe "$1" || echo "%[1]s notloaded $1"
}
run() {
	name=$1 dir=$2
	shift 2
	echo "%[1]s begin $name"
	(cd "$dir" && exec "/jobs/$name" "$@") </dev/null
	echo "%[1]s end $name $?"
	kill -9 -1
}
`, img.mark)
	for _, m := range img.mods.load {
		fmt.Fprintf(&b, "load %s\n", shellQuote(m))
	}
	for _, j := range img.jobs {
		fmt.Fprintf(&b, "run %s %s", j.name, shellQuote("/src/"+j.dir))
		for _, a := range j.args {
			b.WriteString(" " + shellQuote(a))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "echo '%s done'\npoweroff -f\n", img.mark)
	return b.String()
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// pack writes the tree as root's, whoever runs this, so that the kernel trusts
// it. The names are sorted as WalkDir sorts them: directories come first.
func (img *initramfs) pack(ctx context.Context, dir, file string) error {
	names, err := treeNames(dir)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, img.tools.cpio, "--create", "--format=newc", "--owner=+0:+0", "--quiet", "--null")
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(names)
	cmd.Stdout = out
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return commandError(cmd, err, stderr.String())
	}
	return out.Close()
}

// treeNames lists everything below dir, each name ended by a zero byte.
func treeNames(dir string) ([]byte, error) {
	var names []byte
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		names = append(append(names, rel...), 0)
		return err
	})
	return names, err
}

func copyFile(to, from string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
