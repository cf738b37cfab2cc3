package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/internal/nfnl"
)

// flagExpr is that a set has expressions (NFT_SET_EXPR): userspace's own notice.
const flagExpr = 0x100

// listedSet is a set as the kernel has it.
type listedSet struct {
	name    string
	flags   uint32
	keyLen  int
	timeout uint64 // ms
}

// read reads the bans in force. While it does, no call on this Backend changes
// them.
func (b *Backend) read(ctx context.Context) ([]listed, error) {
	if ctx.Err() != nil {
		return nil, nfnl.Ended(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readLocked(ctx)
}

func (b *Backend) readLocked(ctx context.Context) (list []listed, err error) {
	for range attempts {
		if list, err = b.readOnce(ctx); !errors.Is(err, nfnl.ErrInterrupted) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nft: %s is gone: %w: open the backend anew to make it again", b.object(""), ban.ErrNotEnforcing)
	}
	if err != nil {
		return nil, b.explain("", err)
	}
	return list, nil
}

func (b *Backend) readOnce(ctx context.Context) (list []listed, err error) {
	sets, err := b.readSets(ctx)
	if err != nil {
		return nil, err
	}
	list = make([]listed, 0, b.mirror.size())
	for _, s := range sets {
		k, ok := parseKind(s.name)
		if !ok {
			continue
		}
		req := request(getSetElem, 0)
		req.String(listTable, b.cfg.Table)
		req.String(listSet, s.name)
		for m, err := range b.nl.Dump(ctx, req.Message()) {
			if err == nil {
				list, err = decodeElements(m.Data, k, time.Now(), list)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// readSets reads what sets there are. Without the table it is fs.ErrNotExist.
func (b *Backend) readSets(ctx context.Context) (sets []listedSet, err error) {
	req := request(getSet, 0)
	req.String(setTable, b.cfg.Table)
	for m, err := range b.nl.Dump(ctx, req.Message()) {
		var s listedSet
		if err == nil {
			s, err = decodeSet(m.Data)
		}
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// decodeSet reads an NFT_MSG_NEWSET.
func decodeSet(b []byte) (s listedSet, err error) {
	if len(b) < genLen {
		return listedSet{}, nfnl.ErrTruncated
	}
	a := nfnl.Walk(b[genLen:])
	for a.Next() {
		switch a.Type {
		case setName:
			s.name = a.String()
		case setFlags:
			s.flags = a.U32()
		case setKeyLen:
			s.keyLen = int(a.U32())
		case setTimeout:
			s.timeout = a.U64()
		}
	}
	if err := a.Err(); err != nil {
		return listedSet{}, err
	}
	return s, nil
}
