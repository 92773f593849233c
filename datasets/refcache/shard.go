package refcache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// A Shard is what one process of several makes of a cache: number Index of Of, counted
// from 0, has the parts Index, Index+Of, Index+2·Of and so on. A nil Shard has all parts.
//
// It is a folder of its own below the cache's ([Shard.Dir]), written by [Create] as an
// unfinished cache is, so that no two shards write one file. Its manifest is that of a
// cache with these parts alone; source rows are counted up to its last part, and up to the
// end once it is complete. The log stays until the shards are joined: a damaged part is
// made again from there. The LM head is with shard 0 alone.
type Shard struct {
	Index int `json:"index"`
	Of    int `json:"of"`
}

// String is for people.
func (s *Shard) String() string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%d of %d", s.Index, s.Of)
}

// Has reports whether part n of the cache is one of the shard's.
func (s *Shard) Has(n int) bool { return s == nil || n%s.Of == s.Index }

// part is the number in the cache of the shard's part i.
func (s *Shard) part(i int) int {
	if s == nil {
		return i
	}
	return s.Index + i*s.Of
}

// Next is the number in the cache of the first part that can follow the shard's first n.
func (s *Shard) Next(n int) int {
	if n == 0 {
		return 0
	}
	return s.part(n-1) + 1
}

// hasHead reports whether the LM head's file is in the shard's folder.
func (s *Shard) hasHead() bool { return s == nil || s.Index == 0 }

// ShardsName is the folder below a cache's that holds those of its shards; names never change.
const ShardsName = "shards"

const shardName = "shard-%05d-of-%05d"

// Dir is the folder of the shard of the cache in folder cache, which is Dir of nil.
func (s *Shard) Dir(cache string) string {
	if s == nil {
		return cache
	}
	return filepath.Join(cache, ShardsName, fmt.Sprintf(shardName, s.Index, s.Of))
}

// Shards lists the shards that have a folder below that of the cache, whole or not, by
// their numbers; there may be some of several splits.
func Shards(cache string) ([]Shard, error) {
	entries, err := os.ReadDir(filepath.Join(cache, ShardsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("refcache: %w", err)
	}
	var all []Shard
	for _, e := range entries {
		var s Shard
		if n, err := fmt.Sscanf(e.Name(), shardName, &s.Index, &s.Of); n != 2 || err != nil || s.Index < 0 || s.Index >= s.Of {
			continue
		}
		if filepath.Base(s.Dir(cache)) == e.Name() {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Shard) int { return slices.Compare([]int{a.Of, a.Index}, []int{b.Of, b.Index}) })
	return all, nil
}

// mend opens a finished shard whose files were damaged again: resume makes what is not
// whole once more. The error wraps [ErrComplete] where all is whole.
func mend(dir string, have, m Manifest, head *Head) error {
	if err := have.same(m); err != nil {
		return err
	}
	check := newVerifier(context.Background(), func(int) {})
	whole := true
	if m.Shard.hasHead() && check.part(dir, m.headFile()) != nil {
		whole = false
		if err := head.write(dir); err != nil {
			return err
		}
	}
	for _, p := range have.Parts {
		whole = whole && check.part(dir, p) == nil
	}
	if whole {
		return have.complete(dir, m)
	}
	return m.write(dir)
}
