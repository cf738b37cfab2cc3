package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// publishSupport prints the table of SUPPORT lines and does with it what the
// flags ask.
func publishSupport(out io.Writer, reports []report, o options) error {
	table, err := showSupport(out, reports, o)
	if err != nil {
		return err
	}
	if o.check != "" {
		err = checkFile(out, o.check, table)
	}
	if o.update != "" {
		err = errors.Join(err, updateFile(o.update, table))
	}
	return err
}

// publishFailed still shows and writes the table, but compares nothing: a
// failed test may have left features out.
func publishFailed(out io.Writer, reports []report, o options) error {
	if _, err := showSupport(out, reports, o); err != nil {
		return errors.Join(err, errFailed)
	}
	for _, file := range []string{o.check, o.update} {
		if file != "" {
			note("%s is left alone: the table may be incomplete, as not everything passed", file)
		}
	}
	return errFailed
}

func showSupport(out io.Writer, reports []report, o options) (string, error) {
	table := supportTable(reports)
	if table == "" {
		if o.table != "" || o.check != "" || o.update != "" {
			return "", errors.New("no SUPPORT line in any output, so there is no table")
		}
		return "", nil
	}
	fmt.Fprintf(out, "\n%s", table)
	if o.table == "" {
		return table, nil
	}
	return table, os.WriteFile(o.table, []byte(table), 0o644)
}

// supportTable renders features, sorted, against kernels; "" without any.
func supportTable(reports []report) string {
	cells := map[string]map[string]string{}
	for _, rep := range reports {
		for _, s := range rep.support() {
			if cells[s.feature] == nil {
				cells[s.feature] = map[string]string{}
			}
			if old := cells[s.feature][rep.kernel]; len(old) < len(s.cell()) {
				cells[s.feature][rep.kernel] = s.cell()
			}
		}
	}
	if len(cells) == 0 {
		return ""
	}
	head, rule := []string{"Feature"}, []string{"---"}
	for _, rep := range reports {
		head, rule = append(head, rep.kernel), append(rule, "---")
	}
	lines := []string{tableRow(head), tableRow(rule)}
	for _, feature := range slices.Sorted(maps.Keys(cells)) {
		row := []string{escapeCell(feature)}
		for _, rep := range reports {
			row = append(row, cmp.Or(cells[feature][rep.kernel], "not tested"))
		}
		lines = append(lines, tableRow(row))
	}
	return strings.Join(lines, "\n") + "\n"
}

// cell is "yes", "no" or "no (text)". Of two cells the longer one is shown,
// since a contradiction is reported elsewhere.
func (s support) cell() string {
	c := "no"
	if s.yes {
		c = "yes"
	}
	if s.text != "" {
		c += " (" + escapeCell(s.text) + ")"
	}
	return c
}

func tableRow(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const (
	blockBegin = "<!-- kernels:begin -->"
	blockEnd   = "<!-- kernels:end -->"
)

// splitBlock cuts a text into what is before, in and after its one block. The
// markers stay outside.
func splitBlock(text string) (before, block, after string, err error) {
	if strings.Count(text, blockBegin) != 1 || strings.Count(text, blockEnd) != 1 {
		return "", "", "", fmt.Errorf("wants one line %s and one line %s below it", blockBegin, blockEnd)
	}
	before, rest, _ := strings.Cut(text, blockBegin)
	block, after, found := strings.Cut(rest, blockEnd)
	if !found {
		return "", "", "", fmt.Errorf("%s stands before %s", blockEnd, blockBegin)
	}
	return before + blockBegin, block, blockEnd + after, nil
}

func checkFile(out io.Writer, file, table string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, block, _, err := splitBlock(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	// Empty lines around the table are a matter of taste.
	was, is := strings.Trim(block, "\r\n"), strings.Trim(table, "\n")
	if was == is {
		return nil
	}
	fmt.Fprintf(out, "\n--- %s\n+++ this run\n%s", file, diff(was, is))
	return fmt.Errorf("%s: the table differs from this run: renew it with -update %[1]s", file)
}

func updateFile(file, table string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, _, after, err := splitBlock(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(before+"\n\n"+table+"\n"+after), 0o644)
}

// diff compares two texts line by line: lines of both start with a blank,
// lines of a alone with "-", of b alone with "+".
func diff(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	common := commonLines(x, y)
	var out strings.Builder
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			out.WriteString(" " + x[i] + "\n")
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("-" + x[i] + "\n")
			i++
		default:
			out.WriteString("+" + y[j] + "\n")
			j++
		}
	}
	return out.String()
}

// commonLines[i][j] is the length of the longest common subsequence of x[i:]
// and y[j:].
func commonLines(x, y []string) [][]int {
	n := make([][]int, len(x)+1)
	for i := range n {
		n[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	return n
}
