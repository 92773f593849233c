package pipeline

import (
	"context"
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// partition counts the pairs of a cache on each side of the split.
type partition struct {
	split       split
	train, held int64
}

// newPartition reads the key of every prompt of the cache once.
func newPartition(ctx context.Context, cache *refcache.Reader, frac float64) (partition, error) {
	p := partition{split: newSplit(frac)}
	for i := range cache.Len() {
		if err := context.Cause(ctx); err != nil {
			return p, err
		}
		if frac == 0 {
			p.train = cache.Len()
			break
		}
		key, err := cache.Key(i)
		if err != nil {
			return p, err
		}
		if p.split.heldOut(key) {
			p.held++
		} else {
			p.train++
		}
	}
	if p.train == 0 {
		return p, &FieldError{"--eval-frac", frac, fmt.Sprintf("a smaller share: it holds out all %d pairs of the cache", p.held)}
	}
	return p, nil
}

// batchFeed reads optimizer batches one step ahead of the trainer. The pairs
// of an epoch are those not held out, in the order of the epoch's permutation;
// a batch does not reach over the end of an epoch.
type batchFeed struct {
	batches chan feedBatch
	free    chan []refcache.Row
	cancel  context.CancelFunc
}

type feedBatch struct {
	rows []refcache.Row
	err  error
}

// feedAhead is how many batches are in memory at once: one in training, one read.
const feedAhead = 2

// openFeed starts at the first batch behind step.
func openFeed(ctx context.Context, cache *refcache.Reader, part partition, cfg TrainConfig, step int64) *batchFeed {
	ctx, cancel := context.WithCancel(ctx)
	f := &batchFeed{batches: make(chan feedBatch), free: make(chan []refcache.Row, feedAhead), cancel: cancel}
	for range feedAhead {
		f.free <- make([]refcache.Row, cfg.BatchPairs)
	}
	go func() {
		defer close(f.batches)
		f.run(ctx, cache, part, cfg, step)
	}()
	return f
}

func (f *batchFeed) run(ctx context.Context, cache *refcache.Reader, part partition, cfg TrainConfig, step int64) {
	perEpoch := stepsPerEpoch(part.train, cfg.BatchPairs)
	done := step % perEpoch * int64(cfg.BatchPairs)
	for epoch := step / perEpoch; ; epoch++ {
		walk := epochWalk{cache: cache, split: part.split, order: newOrder(cache.Len(), cfg.Seed, int(epoch))}
		err := walk.skip(done)
		for done < part.train {
			rows, ok := f.take(ctx)
			if !ok {
				return
			}
			rows = rows[:min(int64(cfg.BatchPairs), part.train-done)]
			if err == nil {
				err = walk.fill(rows)
			}
			done += int64(len(rows))
			if !f.send(ctx, feedBatch{rows, err}) || err != nil {
				return
			}
		}
		done = 0
	}
}

// take waits for memory that the trainer has finished with.
func (f *batchFeed) take(ctx context.Context) ([]refcache.Row, bool) {
	select {
	case rows := <-f.free:
		return rows[:cap(rows)], true
	case <-ctx.Done():
		return nil, false
	}
}

func (f *batchFeed) send(ctx context.Context, b feedBatch) bool {
	select {
	case f.batches <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// next returns the batch of the next step. It is valid until it is given back.
func (f *batchFeed) next() ([]refcache.Row, error) {
	b, ok := <-f.batches
	if !ok {
		return nil, context.Canceled
	}
	return b.rows, b.err
}

func (f *batchFeed) giveBack(rows []refcache.Row) { f.free <- rows }

func (f *batchFeed) close() {
	f.cancel()
	for range f.batches { // waits for the reader
	}
}

// epochWalk goes through the training pairs of one epoch.
type epochWalk struct {
	cache *refcache.Reader
	split split
	order order
	at    int64
}

// next returns the row of the next training pair.
func (w *epochWalk) next() (int64, error) {
	for w.at < w.cache.Len() {
		row := w.order.at(w.at)
		w.at++
		if w.split.threshold == 0 {
			return row, nil
		}
		key, err := w.cache.Key(row)
		if err != nil {
			return 0, err
		}
		if !w.split.heldOut(key) {
			return row, nil
		}
	}
	return 0, fmt.Errorf("pipeline: the epoch has fewer training pairs than were counted")
}

func (w *epochWalk) fill(rows []refcache.Row) error {
	for i := range rows {
		row, err := w.next()
		if err != nil {
			return err
		}
		if err := w.cache.Row(row, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// skip passes over pairs that an interrupted run has trained on.
func (w *epochWalk) skip(pairs int64) error {
	for range pairs {
		if _, err := w.next(); err != nil {
			return err
		}
	}
	return nil
}

func stepsPerEpoch(pairs int64, batch int) int64 {
	return (pairs + int64(batch) - 1) / int64(batch)
}
