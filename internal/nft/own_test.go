package nft_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/connsleuth/connsleuth/internal/lab"
	"github.com/connsleuth/connsleuth/internal/nfnl"
	"github.com/connsleuth/connsleuth/internal/nfnl/nfnltest"
	"github.com/connsleuth/connsleuth/internal/nft"
)

// owned is a table with a rule and a comment.
func owned(comment string) nft.Table {
	t := input(nft.Rule{Counter: true, Comment: comment})
	t.Comment = "keeps " + comment
	return t
}

func TestOwn(t *testing.T) {
	t.Parallel()
	c, h := dial(t)
	ctx := within(t)
	o, err := c.Own(ctx, owned("one"))
	if err != nil {
		t.Fatal(err)
	}
	if !o.Vanishes() {
		t.Skip("the kernel has no table owners: Linux before 5.12")
	}
	if err := c.Apply(ctx, owned("two")); !errors.Is(err, nft.ErrOwned) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Apply over an owned table: got %v, want ErrOwned", err)
	}
	if err := c.Delete(ctx, nft.INet, "t"); !errors.Is(err, nft.ErrOwned) {
		t.Errorf("Delete of an owned table: got %v, want ErrOwned", err)
	}
	if _, err := c.Own(ctx, owned("two")); !errors.Is(err, nft.ErrOwned) {
		t.Errorf("Own of an owned table: got %v, want ErrOwned", err)
	}
	if err := o.Replace(ctx, owned("three")); err != nil {
		t.Errorf("Replace: %v", err)
	}
	if err := o.Replace(ctx, nft.Table{Family: nft.IPv4, Name: "t"}); err == nil || !strings.Contains(err.Error(), "table ip t: is not the table owned, inet t") {
		t.Errorf("Replace by another table: got %v", err)
	}
	if got, err := c.Counters(ctx, nft.INet, "t", "c"); err != nil || len(got) != 1 || got[0].Comment != "three" {
		t.Errorf("after Replace: %+v, %v", got, err)
	}
	seenByTool(t, h)
	if err := o.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	gone(t, c)
}

// seenByTool has nft(8) list the table and fail to flush it.
func seenByTool(t *testing.T, h *lab.Host) {
	t.Helper()
	if _, err := h.Exec(within(t), "nft", "flush", "ruleset"); err != nil {
		t.Logf("without nft(8): %v", err)
		return
	}
	got := list(t, h)
	for _, want := range []string{"table inet t", "flags owner", `comment "keeps three"`} {
		if !strings.Contains(got, want) {
			t.Errorf("nft list ruleset lacks %s: %s", want, got)
		}
	}
}

// gone waits until the table is.
func gone(t *testing.T, c *nft.Conn) {
	t.Helper()
	ctx := within(t)
	for {
		_, err := c.Counters(ctx, nft.INet, "t", "c")
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			t.Fatalf("the table is still there: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// ownChild makes the test binary a process that owns a table until it is
// killed.
const ownChild = "CONNSLEUTH_NFT_OWN"

func own() error {
	c, err := nft.Dial("")
	if err != nil {
		return err
	}
	o, err := c.Own(context.Background(), owned("child"))
	if err != nil {
		return err
	}
	fmt.Println("vanishes:", o.Vanishes())
	_, err = io.Copy(io.Discard, os.Stdin) // ends when the parent does
	return errors.Join(err, o.Close())
}

// TestOwnKilled kills a process that owns a table.
func TestOwnKilled(t *testing.T) {
	t.Parallel()
	c, h := dial(t)
	cmd := exec.CommandContext(within(t), os.Args[0])
	cmd.Env = append(os.Environ(), ownChild+"=1")
	_, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if lines = append(lines, s.Text()); strings.HasPrefix(s.Text(), "vanishes:") {
			break
		}
	}
	if counters, err := c.Counters(within(t), nft.INet, "t", "c"); err != nil || counters[0].Comment != "child" {
		t.Errorf("before: %+v, %v: the child said %q", counters, err, lines)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // says that it was killed
	if slices.Contains(lines, "vanishes: false") {
		t.Skip("the kernel has no table owners: Linux before 5.12")
	}
	gone(t, c)
}

// TestOwnOldKernel answers as Linux before 5.12, by both of its errors.
func TestOwnOldKernel(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EOPNOTSUPP} {
		const tableFlags = 2 // NFTA_TABLE_FLAGS
		var flagged, deletes int
		nl, _ := nfnltest.Dial(func(r nfnltest.Request) [][]byte {
			if r.Type == newTable {
				for a := nfnl.Walk(r.Data[4:]); a.Next(); {
					if a.Type == tableFlags {
						flagged++
						return [][]byte{nfnltest.Acknowledge(r, errno, "", 0)}
					}
				}
			}
			if r.Type == delTable {
				deletes++
			}
			if r.Flags&nfnl.Ack != 0 {
				return [][]byte{nfnltest.Acknowledge(r, 0, "", 0)}
			}
			return nil
		})
		o, err := nft.NewConn(nl).Own(t.Context(), owned("old"))
		if err != nil || o.Vanishes() || flagged != 1 {
			t.Fatalf("%v: %v after %d tables with flags, want an ordinary table after 1", errno, err, flagged)
		}
		before := deletes
		if err := o.Close(); err != nil || deletes != before+1 {
			t.Errorf("Close: %v, %d tables deleted, want 1", err, deletes-before)
		}
		if err := o.Close(); err == nil {
			t.Error("a second Close succeeded")
		}
	}
}
