package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// UpdateCounts says what became of the pairs where a finished cache was brought to changed
// data. Pairs are the same where id, prompt and token ids are.
type UpdateCounts struct {
	// Reused pairs of the data were in the cache, Computed ones were not.
	Reused   int64 `json:"reused"`
	Computed int64 `json:"computed"`
	// Dropped pairs of the cache are not in the data.
	Dropped int64 `json:"dropped"`
}

// A PruneError refuses to drop pairs of a cache that are not in the data: they cost a pass
// to get, and may be missing by mistake.
type PruneError struct {
	// Cache is the folder, which holds Cached pairs; Missing of them are not in the data.
	Cache           string
	Missing, Cached int64
}

func (e *PruneError) Error() string {
	return fmt.Sprintf("pipeline: %d of the %d pairs in cache %q are not in the data, or changed there, want none", e.Missing, e.Cached, e.Cache)
}

// update makes the successor of a finished cache whose data changed. Rows of pairs that
// are in both are copied, the others are run through the reference.
type update struct {
	dir    string // of the cache, links resolved
	lock   *lockfile.Lock
	old    *refcache.Reader
	join   *refcache.Join
	counts UpdateCounts
	// fresh pairs are still to be scored: not in the cache, nor in what an interrupted
	// update left, which holds the first done pairs.
	fresh, done int64
}

// dataChanged reports whether a finished cache differs from what is wanted in its data
// alone. The error is a *refcache.StaleError where anything else differs.
func dataChanged(m refcache.Manifest, identity map[string]string) (bool, error) {
	if !m.Complete || m.CheckAll(identity) == nil {
		return false, nil
	}
	want := maps.Clone(identity)
	for _, key := range []string{"data", "limit"} {
		want[key] = m.Identity[key]
	}
	return true, m.CheckAll(want)
}

// openUpdate opens the finished cache out, if it is one of other data than wanted; else
// it returns nil.
func openUpdate(out string, identity map[string]string) (*update, error) {
	m, err := refcache.ReadManifest(out)
	if err != nil {
		return nil, err
	}
	if changed, err := dataChanged(m, identity); err != nil || !changed {
		return nil, err
	}
	u := &update{}
	if u.dir, err = realPath(out); err != nil {
		return nil, err
	}
	u.old, err = refcache.Open(u.dir)
	return u, err
}

// tidy removes what a killed update left of the finished cache out.
func tidy(out string) error {
	dir, err := realPath(out)
	if err != nil {
		return err
	}
	return refcache.Tidy(dir)
}

// realPath is where a folder lies: what is beside it counts.
func realPath(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(path)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return "", fmt.Errorf("pipeline: cache folder: %w", err)
	}
	return dir, nil
}

// find makes the table of the cache's rows, whose bytes are checked first: what is
// damaged must not get a new checksum.
func (u *update) find(ctx context.Context, p *precompute) (err error) {
	start := time.Now()
	tell := func(stage, unit string, scale int64) func(done, total int64) {
		return func(done, total int64) {
			p.report.report(Progress{Stage: stage, Done: done / scale, Total: total / scale, Unit: unit, Fresh: done / scale, Elapsed: time.Since(start)})
		}
	}
	if err := u.old.Verify(ctx, tell("check cache", "MB", 1e6)); err != nil {
		return err
	}
	u.join, err = u.old.Join(ctx, tell("list cache", "pairs", 1))
	return err
}

// close closes the cache and gives it free.
func (u *update) close() error { return errors.Join(u.closeFiles(), u.lock.Release()) }

func (u *update) closeFiles() (err error) {
	if u.join != nil {
		err = u.join.Close()
	}
	if u.old != nil {
		err = errors.Join(err, u.old.Close())
	}
	u.join, u.old = nil, nil
	return err
}

// rows finds the rows of a window in the cache; -1 where there is none.
func (u *update) rows(window []encode.Pair) ([]int64, error) {
	at := make([]int64, len(window))
	for i, pair := range window {
		row := rowOf(pair)
		n, found, err := u.join.Find(row.Content())
		if err != nil {
			return nil, err
		}
		if at[i] = n; !found {
			at[i] = -1
		}
	}
	return at, nil
}

// count adds a window, whose pairs begin at number first of the data, and returns those
// that are to be scored.
func (u *update) count(first int64, window []encode.Pair) (missing []encode.Pair, err error) {
	at, err := u.rows(window)
	if err != nil {
		return nil, err
	}
	for i, row := range at {
		if row >= 0 {
			u.counts.Reused++
			continue
		}
		u.counts.Computed++
		if first+int64(i) >= u.done {
			u.fresh++
		}
		missing = append(missing, window[i])
	}
	return missing, nil
}

// plan joins the data and the cache, without the model.
func (u *update) plan(ctx context.Context, e *estimator) error {
	if err := u.find(ctx, e.pass); err != nil {
		return err
	}
	if err := e.run(ctx); err != nil {
		return err
	}
	u.counts.Dropped = u.join.Left()
	return nil
}

// runUpdate builds the successor of the cache and puts it in its place.
func (p *precompute) runUpdate(ctx context.Context) error {
	u := p.update
	if err := u.begin(p.ref.identity); err != nil {
		return err
	}
	plan := &precompute{cfg: p.cfg, ref: p.ref, report: p.report, start: p.start, update: u}
	if err := u.plan(ctx, &estimator{pass: plan}); err != nil {
		return err
	}
	p.rows.n.Store(plan.position.Rows)
	if u.counts.Dropped > 0 && !p.cfg.Prune {
		return &PruneError{Cache: p.cfg.Out, Missing: u.counts.Dropped, Cached: u.old.Len()}
	}
	p.result.Update = &u.counts
	err := p.create(ctx)
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil && !errors.Is(err, refcache.ErrComplete) {
		return err
	}
	// Not every system renames folders with open files.
	if err := u.closeFiles(); err != nil {
		return err
	}
	return refcache.Replace(u.dir)
}

// begin takes the lock of the cache, which must still be the one that was opened.
func (u *update) begin(identity map[string]string) (err error) {
	if u.lock, err = lockfile.Acquire(u.dir); err != nil {
		return err
	}
	m, err := refcache.ReadManifest(u.dir)
	if err != nil {
		return err
	}
	if err := m.CheckAll(u.old.Manifest().Identity); err != nil {
		return fmt.Errorf("pipeline: cache %q was replaced by another process meanwhile: run the command again", u.dir)
	}
	if next, err := refcache.ReadManifest(refcache.Successor(u.dir)); err == nil && next.CheckAll(identity) == nil {
		u.done = next.Counts.Kept
	}
	return refcache.CanReplace(u.dir)
}

// updatePart makes a window the next part: a part of the old cache where that holds the
// same rows, else copied and scored ones.
func (p *precompute) updatePart(ctx context.Context, window []encode.Pair) error {
	at, err := p.update.rows(window)
	if err != nil {
		return err
	}
	linked, err := p.linkPart(window, at)
	if err == nil && !linked {
		var rows []refcache.Row
		if rows, err = p.updateRows(ctx, window, at); err == nil {
			err = p.w.WritePart(rows, p.position)
		}
	}
	if err != nil {
		return err
	}
	p.kept += int64(len(window))
	p.progress()
	return nil
}

// linkPart takes over a part of the old cache whose rows are those of the window.
func (p *precompute) linkPart(window []encode.Pair, at []int64) (bool, error) {
	n, ok := p.update.old.PartOf(at[0], int64(len(at)))
	if !ok {
		return false, nil
	}
	for i, row := range at {
		if row != at[0]+int64(i) {
			return false, nil
		}
		if weight, err := p.update.old.Weight(row); err != nil || weight != window[i].Weight {
			return false, err
		}
	}
	return p.w.LinkPart(p.update.old, n, p.position)
}

// updateRows copies the rows of a window that the old cache has and scores the others.
func (p *precompute) updateRows(ctx context.Context, window []encode.Pair, at []int64) ([]refcache.Row, error) {
	rows := make([]refcache.Row, len(window))
	var missing []encode.Pair
	for i, row := range at {
		if row < 0 {
			missing = append(missing, window[i])
			continue
		}
		if err := p.update.old.Row(row, &rows[i]); err != nil {
			return nil, err
		}
		rows[i].Weight = window[i].Weight
	}
	scored, err := p.score(ctx, missing)
	if err != nil {
		return nil, err
	}
	for i, row := range at {
		if row < 0 {
			rows[i], scored = scored[0], scored[1:]
		}
	}
	return rows, nil
}

// progress counts pairs to be reused as done from the start: they take no time beside
// the others.
func (u *update) progress(r *Progress) {
	r.Total = u.counts.Reused + u.counts.Computed
	r.Done = r.Total - max(0, u.fresh-r.Fresh)
	r.Note = fmt.Sprintf("%d reused", u.counts.Reused)
}
