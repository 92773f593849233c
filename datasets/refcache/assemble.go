package refcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// Assembly says how the shards of a cache are joined.
type Assembly struct {
	// Of is the number of shards; 0 takes it from their folders.
	Of int
	// Want is what the identity must hold; nil for anything.
	Want map[string]string
	// Keep leaves the shards where they are.
	Keep bool
	// Bring, where it is not nil, is called when the manifests of all shards are there and make a
	// cache, before any other file is read. It makes files appear, by their names with slashes
	// below the cache's folder: of shards that are kept elsewhere nothing but the manifests need
	// be there before.
	Bring func(ctx context.Context, files []string) error
	// Progress, where it is not nil, is told how many of the total bytes are checked.
	Progress func(done, total int64)
}

// Assemble makes the finished cache in dir out of the shards below it, with the bytes of
// one that a single process wrote. All of them are verified first. Files get second names,
// or are copied where the file system has no links. The cache is there from the moment
// that its manifest is, the last file; until then the shards stay as they were, and
// Assemble can be called again.
//
// The error wraps [ErrComplete] where the cache was joined before: shards that are left
// of it are removed then. It is a *[SplitError] where shards of several splits are there
// and a.Of is 0, a *[ShardsError] where some are missing, unfinished or damaged, wraps a
// *[StaleError] where they were not all made alike, and is a *[lockfile.LockedError] where
// another process has the folder.
func Assemble(ctx context.Context, dir string, a Assembly) (err error) {
	// Where there is nothing to join, nothing is written, not even a lock.
	all, err := Shards(dir)
	if err != nil {
		return err
	}
	if len(all) == 0 && !IsCache(dir) {
		return &ShardsError{Cache: dir, Of: a.Of, Missing: numbers(a.Of)}
	}
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	have, err := readManifest(dir)
	switch {
	case err == nil:
		return have.assembled(dir, all, a)
	case !errors.Is(err, ErrNotCache):
		return err
	}
	if a.Of == 0 {
		if a.Of, err = split(dir, all); err != nil {
			return err
		}
	}
	set := &shardSet{cache: dir, shards: make([]Manifest, a.Of), state: make([]error, a.Of)}
	m, err := set.join(ctx, a)
	if err != nil {
		return err
	}
	if err := set.place(ctx, m); err != nil {
		return err
	}
	if err := m.write(dir); err != nil || a.Keep {
		return err
	}
	return atomicfile.RemoveDir(filepath.Join(dir, ShardsName))
}

// numbers lists 0 to n-1.
func numbers(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// assembled answers where dir holds a cache already: shards that are still there were
// joined by a process that was killed, or were kept.
func (m Manifest) assembled(dir string, all []Shard, a Assembly) error {
	if err := m.Check(a.Want); err != nil {
		return err
	}
	if !m.Complete {
		return fmt.Errorf("refcache: %q: %w, written by a single process", dir, ErrIncomplete)
	}
	for i := range all {
		s, err := readManifest(all[i].Dir(dir))
		if errors.Is(err, ErrNotCache) {
			continue
		}
		if err == nil {
			err = s.CheckAll(m.Identity)
		}
		if err != nil {
			return fmt.Errorf("refcache: %q is complete, and shard %v is of another cache: %w", dir, &all[i], err)
		}
	}
	err := atomicfile.RemoveTemp(dir)
	if err == nil && len(all) > 0 && !a.Keep {
		err = atomicfile.RemoveDir(filepath.Join(dir, ShardsName))
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("refcache: %q: %w", dir, ErrComplete)
}

// split is the number of shards that there should be.
func split(dir string, all []Shard) (int, error) {
	var of []int
	for _, s := range all {
		if len(of) == 0 || of[len(of)-1] != s.Of {
			of = append(of, s.Of)
		}
	}
	if len(of) > 1 {
		return 0, &SplitError{Cache: dir, Of: of}
	}
	return of[0], nil
}

// A SplitError is a folder with shards of several splits.
type SplitError struct {
	// Cache is the folder, Of are the numbers of shards, ascending.
	Cache string
	Of    []int
}

// Error implements error.
func (e *SplitError) Error() string {
	return fmt.Sprintf("refcache: cache %q holds shards of splits into %s, want those of one", e.Cache, strings.Trim(fmt.Sprint(e.Of), "[]"))
}

// A ShardsError names the shards without which a cache can't be joined.
type ShardsError struct {
	// Cache is the folder, Of the number of shards; 0 where nothing says it.
	Cache string
	Of    int
	// Missing shards have not begun, Unfinished ones have not ended, Damaged ones are not
	// what was written, for the reasons in Damage.
	Missing, Unfinished, Damaged []int
	Damage                       []error
}

// Error implements error: one line, and one more for each damaged shard.
func (e *ShardsError) Error() string {
	if e.Of == 0 {
		return fmt.Sprintf("refcache: %q holds neither a cache nor shards of one", e.Cache)
	}
	var what []string
	for _, group := range []struct {
		shards []int
		are    string
	}{{e.Missing, "missing"}, {e.Unfinished, "unfinished"}, {e.Damaged, "damaged"}} {
		if len(group.shards) > 0 {
			what = append(what, fmt.Sprintf("%s: %s", group.are, strings.ReplaceAll(strings.Trim(fmt.Sprint(group.shards), "[]"), " ", ",")))
		}
	}
	text := fmt.Sprintf("refcache: cache %q lacks some of its %d shards; %s", e.Cache, e.Of, strings.Join(what, "; "))
	for _, err := range e.Damage {
		text += "\n" + err.Error()
	}
	return text
}

// shardSet is the shards of one split.
type shardSet struct {
	cache  string
	shards []Manifest
	state  []error // nil where the manifest was read
}

// join verifies the shards and returns the manifest of the cache that they make.
func (set *shardSet) join(ctx context.Context, a Assembly) (Manifest, error) {
	for i := range set.shards {
		s := Shard{i, len(set.shards)}
		if set.shards[i], set.state[i] = readManifest(s.Dir(set.cache)); set.state[i] == nil {
			set.state[i] = set.shards[i].checkShard(s)
		} else if _, err := os.Stat(s.Dir(set.cache)); err == nil && errors.Is(set.state[i], ErrNotCache) {
			set.state[i] = ErrIncomplete // it has begun
		}
	}
	if err := set.alike(a.Want); err != nil {
		return Manifest{}, errors.Join(err, set.lacking())
	}
	if a.Bring != nil {
		if err := set.bring(ctx, a.Bring); err != nil {
			return Manifest{}, err
		}
	}
	if err := set.verify(ctx, a.Progress); err != nil {
		return Manifest{}, err
	}
	if err := set.lacking(); err != nil {
		return Manifest{}, err
	}
	return set.merge()
}

// bring has the files of the shards brought, if these make a cache.
func (set *shardSet) bring(ctx context.Context, bring func(context.Context, []string) error) error {
	if err := set.lacking(); err != nil {
		return err
	}
	if _, err := set.merge(); err != nil {
		return err
	}
	var names []string
	for _, m := range set.shards {
		for _, p := range m.Files() {
			names = append(names, path.Join(filepath.ToSlash(m.Shard.Dir("")), p.Name))
		}
	}
	return bring(ctx, names)
}

// checkShard wants the manifest of the finished shard s.
func (m Manifest) checkShard(s Shard) error {
	switch {
	case m.Shard == nil || *m.Shard != s:
		return fmt.Errorf("refcache: the folder of shard %v holds shard %v: %w", &s, m.Shard, ErrCorrupt)
	case !m.Complete:
		return ErrIncomplete
	}
	return nil
}

// lacking is a *[ShardsError] unless every shard is there and whole.
func (set *shardSet) lacking() error {
	e := &ShardsError{Cache: set.cache, Of: len(set.shards)}
	for i, err := range set.state {
		switch {
		case errors.Is(err, ErrNotCache):
			e.Missing = append(e.Missing, i)
		case errors.Is(err, ErrIncomplete):
			e.Unfinished = append(e.Unfinished, i)
		case err != nil:
			e.Damaged, e.Damage = append(e.Damaged, i), append(e.Damage, err)
		}
	}
	if len(e.Missing)+len(e.Unfinished)+len(e.Damaged) == 0 {
		return nil
	}
	return e
}

// alike returns an error, a line for each shard that is of another identity than most of
// them, or than is wanted.
func (set *shardSet) alike(want map[string]string) error {
	votes := map[string]int{}
	most := -1
	key := func(i int) string {
		text, _ := json.Marshal(set.shards[i].Identity) // of strings; keys come out sorted
		return string(text)
	}
	for i := range set.shards {
		if set.shards[i].Identity == nil {
			continue
		}
		if votes[key(i)]++; most < 0 || votes[key(i)] > votes[key(most)] {
			most = i
		}
	}
	var errs []error
	for i := range set.shards {
		if set.shards[i].Identity == nil {
			continue
		}
		reference := set.shards[most]
		reference.Shard = set.shards[i].Shard
		err := set.shards[i].Check(want)
		if err == nil {
			err = set.shards[i].same(reference)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("shard %v: %w", &Shard{i, len(set.shards)}, err))
		}
	}
	return errors.Join(errs...)
}

// verify reads all files and notes the shards that are not what was written.
func (set *shardSet) verify(ctx context.Context, progress func(done, total int64)) error {
	var done, total int64
	for _, m := range set.shards {
		for _, p := range m.Files() {
			total += p.Size
		}
	}
	read := func(n int) {
		if done += int64(n); progress != nil {
			progress(done, total)
		}
	}
	v := newVerifier(ctx, read)
	for i, m := range set.shards {
		for _, p := range m.Files() {
			if set.state[i] != nil {
				break
			}
			set.state[i] = v.part(m.Shard.Dir(set.cache), p)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// Files are the parts and, unless they are of a shard that has none, the LM head.
func (m *Manifest) Files() []Part {
	if m.Shard.hasHead() {
		return append([]Part{m.headFile()}, m.Parts...)
	}
	return m.Parts
}

// merge is the manifest of the cache. That source rows add up says that no part is
// missing and none is there twice, whatever the shards believe.
func (set *shardSet) merge() (Manifest, error) {
	m := set.shards[0]
	m.Shard, m.Parts = nil, nil
	m.Counts = Counts{Read: m.Counts.Read, Dropped: m.Counts.Dropped, Apart: m.Counts.Apart, Truncated: m.Counts.Truncated}
	parts := 0
	for i := range set.shards {
		c := set.shards[i].Counts
		if c.Read != m.Counts.Read || c.Dropped.Rows() != m.Counts.Dropped.Rows() || c.Apart != m.Counts.Apart || c.Truncated != m.Counts.Truncated {
			return m, fmt.Errorf("refcache: shard %v counts other source rows than shard 0: %w", &Shard{i, len(set.shards)}, ErrCorrupt)
		}
		m.Counts.Kept += c.Kept
		m.Counts.PromptTokens += c.PromptTokens
		m.Counts.ChosenTokens += c.ChosenTokens
		m.Counts.RejectedTokens += c.RejectedTokens
		parts += len(set.shards[i].Parts)
	}
	var end int64
	for n := range parts {
		from := set.shards[n%len(set.shards)].Parts
		at := n / len(set.shards)
		if at >= len(from) || from[at].SourceEnd <= end {
			return m, fmt.Errorf("refcache: the shards of %q don't make a row of %d parts: %w", set.cache, parts, ErrCorrupt)
		}
		end = from[at].SourceEnd
		m.Parts = append(m.Parts, from[at])
	}
	if c := m.Counts; parts == 0 || c.Read != c.Kept+c.Dropped.Rows() {
		return m, fmt.Errorf("refcache: the shards of %q hold %d of %d source rows, and %d were dropped: %w", set.cache, c.Kept, c.Read, c.Dropped.Rows(), ErrCorrupt)
	}
	return m, nil
}

// place puts the head and the parts into the cache's folder, in place of what a killed
// process left there.
func (set *shardSet) place(ctx context.Context, m Manifest) error {
	if err := errors.Join(atomicfile.RemoveTemp(set.cache), removeParts(set.cache, nil)); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(set.cache, headName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("refcache: %w", err)
	}
	for i := range set.shards {
		from := set.shards[i].Shard.Dir(set.cache)
		for _, p := range set.shards[i].Files() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := placeFile(p, filepath.Join(from, p.Name), filepath.Join(set.cache, p.Name)); err != nil {
				return err
			}
		}
	}
	return atomicfile.SyncDir(set.cache) // once for all names: a pass has thousands of parts
}

// link is os.Link, but for tests of file systems that have none.
var link = os.Link

// placeFile gives a verified file a second name, or copies it.
func placeFile(p Part, from, to string) error {
	if link(from, to) == nil {
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("refcache: %w", err)
	}
	defer f.Close()
	return atomicfile.WriteFile(to, func(w io.Writer) error {
		hash := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, hash), f); err != nil {
			return err
		}
		if sum := hex.EncodeToString(hash.Sum(nil)); sum != p.SHA256 {
			return fmt.Errorf("refcache: %q has SHA-256 %s, want %s: %w", from, sum, p.SHA256, ErrCorrupt)
		}
		return nil
	})
}
