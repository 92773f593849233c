package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"

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

// batchFeed reads batches of pairs one ahead of who uses them, hidden states included.
type batchFeed struct {
	batches chan []refcache.Row
	free    chan []refcache.Row
	cancel  context.CancelFunc
	err     error // why batches is closed; nil at the end
}

// feedAhead is how many batches are in memory at once: one in use, one read.
const feedAhead = 2

// openFeed starts to read batches of at most size pairs, which are given by the numbers of
// their rows.
func openFeed(ctx context.Context, cache cachedPairs, size int, batches iter.Seq2[[]int64, error]) *batchFeed {
	ctx, cancel := context.WithCancel(ctx)
	f := &batchFeed{batches: make(chan []refcache.Row), free: make(chan []refcache.Row, feedAhead), cancel: cancel}
	for range feedAhead {
		f.free <- make([]refcache.Row, size)
	}
	go func() {
		defer close(f.batches)
		f.err = f.run(ctx, cache, batches)
	}()
	return f
}

func (f *batchFeed) run(ctx context.Context, cache cachedPairs, batches iter.Seq2[[]int64, error]) error {
	for numbers, err := range batches {
		if err != nil {
			return err
		}
		var rows []refcache.Row
		select {
		case rows = <-f.free: // memory that its user has finished with
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		rows = rows[:len(numbers)]
		if err := cache.read(ctx, numbers, rows); err != nil {
			return err
		}
		select {
		case f.batches <- rows:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// next returns the next batch, nil at the end. It is valid until it is given back.
func (f *batchFeed) next() ([]refcache.Row, error) {
	if rows, ok := <-f.batches; ok {
		return rows, nil
	}
	return nil, f.err
}

func (f *batchFeed) giveBack(rows []refcache.Row) { f.free <- rows[:cap(rows)] }

func (f *batchFeed) close() {
	f.cancel()
	for range f.batches { // waits for the reader
	}
}

// trainingBatches lists the rows of the optimizer batches behind step, up to that of step
// last. The pairs of an epoch are those not held out, in the order of the epoch's
// permutation; a batch does not reach over the end of an epoch.
func trainingBatches(cache *refcache.Reader, part partition, cfg TrainConfig, step, last int64) iter.Seq2[[]int64, error] {
	return func(yield func([]int64, error) bool) {
		perEpoch := stepsPerEpoch(part.train, cfg.BatchPairs)
		done := step % perEpoch * int64(cfg.BatchPairs)
		for epoch := step / perEpoch; step < last; epoch++ {
			walk := epochWalk{cache: cache, split: part.split, order: newOrder(cache.Len(), cfg.Seed, int(epoch))}
			if err := walk.skip(done); err != nil {
				yield(nil, err)
				return
			}
			for ; done < part.train && step < last; step++ {
				rows, err := walk.take(min(int64(cfg.BatchPairs), part.train-done))
				if !yield(rows, err) || err != nil {
					return
				}
				done += int64(len(rows))
			}
			done = 0
		}
	}
}

// pickedBatches lists the rows of the pairs whose prompts pick chooses, in cache order.
func pickedBatches(ctx context.Context, cache *refcache.Reader, pick func(prompt [16]byte) bool, size int) iter.Seq2[[]int64, error] {
	return func(yield func([]int64, error) bool) {
		var rows []int64
		for i := range cache.Len() {
			key, err := cache.Key(i)
			if err = errors.Join(err, context.Cause(ctx)); err != nil {
				yield(nil, err)
				return
			}
			if pick(key) {
				rows = append(rows, i)
			}
			if len(rows) == size {
				if !yield(rows, nil) {
					return
				}
				rows = rows[:0]
			}
		}
		if len(rows) > 0 {
			yield(rows, nil)
		}
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

// take returns the rows of the next n training pairs.
func (w *epochWalk) take(n int64) ([]int64, error) {
	rows := make([]int64, n)
	for i := range rows {
		var err error
		if rows[i], err = w.next(); err != nil {
			return nil, err
		}
	}
	return rows, nil
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
