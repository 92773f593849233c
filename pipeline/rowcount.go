package pipeline

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// rowCount learns how many rows the data has while the pass runs, for the time
// that is left; a pass of seconds may end before it is known.
type rowCount struct {
	n    atomic.Int64
	done sync.WaitGroup
}

// start counts in the background until the returned function is called; what is known
// already is not counted again.
func (c *rowCount) start(ctx context.Context, cfg PrecomputeConfig) (stop func()) {
	if c.n.Load() > 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	c.done.Go(func() {
		if n, err := countRows(ctx, cfg); err == nil {
			c.n.Store(n)
		}
	})
	return func() {
		cancel()
		c.done.Wait()
	}
}

// countRows reads the data without encoding it. Errors are left to the pass
// itself, which will meet them at the same row.
func countRows(ctx context.Context, cfg PrecomputeConfig) (n int64, err error) {
	r, err := datasets.Open(cfg.Data, cfg.Reading)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		_, err := r.Next(ctx)
		var bad *datasets.RowError
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil && !errors.As(err, &bad):
			return 0, err
		}
		n++
	}
}
