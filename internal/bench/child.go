package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// patience is how long one piece of work may take: a library that waits for an
// answer that never comes is told instead of waited for.
const patience = 5 * time.Minute

// child does a piece of work in a process of its own inside the place.
func child(ctx context.Context, p place, w work) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, diagnosis bytes.Buffer
	err := p.do(func() error {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-child", w.name, "-n", strconv.Itoa(p.size()))
		cmd.Stdout, cmd.Stderr = &out, &diagnosis
		return cmd.Run()
	})
	if err != nil {
		return result{}, fmt.Errorf("%w: %s", errors.Join(err, ctx.Err()), bytes.TrimSpace(diagnosis.Bytes()))
	}
	var r result
	return r, json.Unmarshal(out.Bytes(), &r)
}
