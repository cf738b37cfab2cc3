package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A kernel is an unpacked Debian kernel package.
type kernel struct {
	series  string // as asked for: "6.1"
	release string // as uname -r prints it: "6.1.0-56-cloud-amd64"
	image   string // path of vmlinuz
	base    string // directory that holds lib/modules/<release>
}

func (k kernel) modules() string { return filepath.Join(k.base, "lib", "modules", k.release) }

// A store keeps unpacked kernels, one directory per package name. Debian
// gives every upload that changes the module ABI a new package name.
type store struct {
	dir   string
	tools tools
}

func openStore(t tools) (*store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no directory to keep kernels in: %w", err)
	}
	dir := filepath.Join(cache, "connsleuth-kernels")
	return &store{dir, t}, os.MkdirAll(dir, 0o755)
}

// kernel returns the newest kernel of a series that apt knows, from the store
// or the network. When it cannot be had, a kernel already in the store will do.
func (s *store) kernel(ctx context.Context, series string) (kernel, error) {
	k, err := s.newest(ctx, series)
	if err != nil && ctx.Err() == nil && canInstall() {
		// The package lists may be missing, or name what the archive dropped.
		note("%s: %v; updating the package lists", series, err)
		if uerr := aptGet(ctx, "", "update"); uerr != nil {
			err = errors.Join(err, uerr)
		} else {
			k, err = s.newest(ctx, series)
		}
	}
	if err == nil {
		return k, nil
	}
	if old, oerr := s.newestStored(series); oerr == nil {
		note("%s: %v; using %s from %s", series, err, old.release, s.dir)
		return old, nil
	}
	return kernel{}, fmt.Errorf("kernel %s: %w", series, err)
}

func (s *store) newest(ctx context.Context, series string) (kernel, error) {
	names, err := available(ctx, series)
	if err != nil {
		return kernel{}, err
	}
	name, ok := pickPackage(names, series)
	if !ok {
		return kernel{}, fmt.Errorf("apt knows no package linux-image-%s.*-cloud-amd64: run apt-get update as root, or add "+
			"a source that has it (6.1: bookworm or bookworm-security; 6.12: bookworm-security or bookworm-backports)", series)
	}
	if k, err := s.stored(name, series); err == nil {
		return k, nil
	}
	note("%s: downloading %s", series, name)
	if err := s.download(ctx, name); err != nil {
		return kernel{}, err
	}
	return s.stored(name, series)
}

// available names the kernel packages in apt's lists, without the packages
// that only a dependency mentions.
func available(ctx context.Context, series string) ([]string, error) {
	pattern := "^linux-image-" + regexp.QuoteMeta(series) + `\..*cloud-amd64`
	out, err := output(ctx, "", nil, "apt-cache", "search", "--names-only", pattern)
	if err != nil {
		return nil, fmt.Errorf("looking for kernels needs Debian or Ubuntu: %w", err)
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		names = append(names, name)
	}
	return names, nil
}

func (s *store) download(ctx context.Context, name string) error {
	tmp, err := os.MkdirTemp(s.dir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := aptGet(ctx, tmp, "download", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s: %d packages arrived in %s", name, len(debs), tmp)
	}
	root := filepath.Join(tmp, "root")
	if _, err := output(ctx, "", nil, "dpkg", "-x", debs[0], root); err != nil {
		return err
	}
	if err := s.prepare(ctx, root); err != nil {
		return err
	}
	// Another run may have put the same kernel there meanwhile.
	if err := os.Rename(root, filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// prepare turns an unpacked package into a kernel of the store: modules below
// lib, uncompressed, since that is slow under emulation, and indexed.
func (s *store) prepare(ctx context.Context, root string) error {
	k, err := kernelIn(root)
	if err != nil {
		return err
	}
	if k.base != root { // Debian 13 keeps lib in usr.
		if err := os.Rename(filepath.Join(k.base, "lib"), filepath.Join(root, "lib")); err != nil {
			return err
		}
		k.base = root
	}
	if err := s.uncompress(ctx, k.modules()); err != nil {
		return err
	}
	_, err = output(ctx, "", nil, s.tools.depmod, "-b", root, k.release)
	return err
}

func (s *store) uncompress(ctx context.Context, modules string) error {
	args := []string{"unxz"}
	err := filepath.WalkDir(modules, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			args = append(args, path)
		}
		return err
	})
	if err == nil && len(args) > 1 {
		_, err = output(ctx, "", nil, s.tools.busybox, args...)
	}
	return err
}

func (s *store) stored(name, series string) (kernel, error) {
	k, err := kernelIn(filepath.Join(s.dir, name))
	k.series = series
	return k, err
}

func (s *store) newestStored(series string) (kernel, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return kernel{}, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	name, ok := pickPackage(names, series)
	if !ok {
		return kernel{}, fmt.Errorf("no kernel %s in %s", series, s.dir)
	}
	return s.stored(name, series)
}

// kernelIn finds the one kernel below an unpacked package.
func kernelIn(root string) (kernel, error) {
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return kernel{}, fmt.Errorf("%s: %d kernel images in boot, want 1", root, len(images))
	}
	k := kernel{image: images[0], release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}
	for _, k.base = range []string{root, filepath.Join(root, "usr")} {
		if _, err := os.Stat(k.modules()); err == nil {
			return k, nil
		}
	}
	return kernel{}, fmt.Errorf("%s: no modules of %s", root, k.release)
}

var (
	seriesPattern  = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)
	packagePattern = regexp.MustCompile(`^linux-image-([0-9]+\.[0-9]+)(\.[0-9][^ ]*)-cloud-amd64(-unsigned)?$`)
	digits         = regexp.MustCompile(`[0-9]+`)
)

// pickPackage returns the newest cloud kernel of a series. Unsigned ones are
// the same kernels; they are taken only when there is no signed one.
func pickPackage(names []string, series string) (string, bool) {
	var best string
	for _, name := range names {
		if m := packagePattern.FindStringSubmatch(name); m != nil && m[1] == series &&
			(best == "" || comparePackages(best, name) < 0) {
			best = name
		}
	}
	return best, best != ""
}

func comparePackages(a, b string) int {
	ma, mb := packagePattern.FindStringSubmatch(a), packagePattern.FindStringSubmatch(b)
	if ma[3] != mb[3] {
		return strings.Compare(mb[3], ma[3]) // signed, "", is better
	}
	return compareVersions(ma[2], mb[2])
}

// compareVersions compares the numbers in two versions: 6.1.0-9 < 6.1.0-10.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(s string) []int {
	var ns []int
	for _, d := range digits.FindAllString(s, -1) {
		n, _ := strconv.Atoi(d)
		ns = append(ns, n)
	}
	return ns
}
