package models

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Workers is how many goroutines [Each] runs n tasks on.
func Workers(n int) int { return min(runtime.GOMAXPROCS(0), n) }

// Each runs do for every task in [0,n) on all cores, until ctx ends, whose cause it then
// returns. Which worker, of [Workers], does which task is left to chance, so tasks write to places of
// their own; a worker does one task at a time.
func Each(ctx context.Context, n int, do func(worker, task int)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for worker := range Workers(n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				task := int(next.Add(1)) - 1
				if task >= n {
					return
				}
				do(worker, task)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
