package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const twoReportsTable = `| Feature | 6.1 | 6.12 |
| --- | --- | --- |
| a\|a | yes | not tested |
| b | no (old) | yes |
`

func TestSupportTable(t *testing.T) {
	if got := supportTable(twoReports()); got != twoReportsTable {
		t.Errorf("got\n%s\nwant\n%s", got, twoReportsTable)
	}
	if got := supportTable([]report{{kernel: "6.1"}}); got != "" {
		t.Errorf("without a SUPPORT line: %q", got)
	}
}

func TestSplitBlock(t *testing.T) {
	before, block, after, err := splitBlock("x" + blockBegin + "\ny\n" + blockEnd + "z")
	if before != "x"+blockBegin || block != "\ny\n" || after != blockEnd+"z" || err != nil {
		t.Errorf("%q, %q, %q, %v", before, block, after, err)
	}
	for _, text := range []string{
		"", blockBegin, blockEnd, blockEnd + blockBegin, blockBegin + blockBegin + blockEnd, blockBegin + blockEnd + blockEnd,
	} {
		if _, _, _, err := splitBlock(text); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

func TestCheckAndUpdate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	old := strings.Replace(twoReportsTable, "no (old)", "no", 1)
	writeFile(t, file, "# Title\n"+blockBegin+"\n"+old+blockEnd+"\nend\n")
	o := options{check: file}

	var out strings.Builder
	if err := publishSupport(&out, twoReports(), o); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("check of an old table: %v", err)
	}
	if want := " | --- | --- | --- |\n | a\\|a | yes | not tested |\n-| b | no | yes |\n+| b | no (old) | yes |\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("printed\n%s\nwant at the end\n%s", out.String(), want)
	}

	for range 2 { // the second time, nothing changes
		if err := publishSupport(&out, twoReports(), options{update: file}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if want := "# Title\n" + blockBegin + "\n\n" + twoReportsTable + "\n" + blockEnd + "\nend\n"; err != nil || string(got) != want {
			t.Errorf("updated to %q, %v, want %q", got, err, want)
		}
		if err := publishSupport(&out, twoReports(), o); err != nil {
			t.Errorf("check of a new table: %v", err)
		}
	}
}

func TestPublishFailed(t *testing.T) {
	dir := t.TempDir()
	file, table := filepath.Join(dir, "README.md"), filepath.Join(dir, "table.md")
	writeFile(t, file, "untouched")
	err := publishFailed(&strings.Builder{}, twoReports(), options{update: file, table: table})
	if !errors.Is(err, errFailed) {
		t.Errorf("error %v, want %v", err, errFailed)
	}
	for path, want := range map[string]string{file: "untouched", table: twoReportsTable} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestNoTable(t *testing.T) {
	reports := []report{{kernel: "6.1"}}
	if err := publishSupport(&strings.Builder{}, reports, options{}); err != nil {
		t.Error(err)
	}
	if err := publishSupport(&strings.Builder{}, reports, options{check: "README.md"}); err == nil {
		t.Error("nothing to check, and no error")
	}
}

func TestDiff(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"a\nb", "a\nb", " a\n b\n"},
		{"a\nb\nc", "a\nx\nc", " a\n-b\n+x\n c\n"},
		{"b", "a\nb\nc", "+a\n b\n+c\n"},
		{"a\nb\nc", "c", "-a\n-b\n c\n"},
		{"", "a", "-\n+a\n"},
	} {
		if got := diff(tt.a, tt.b); got != tt.want {
			t.Errorf("diff(%q, %q) = %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}
