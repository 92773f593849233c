package store

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// attempts bounds how often one thing is tried. The drivers try single requests
// three times themselves; this is about what they give up on.
const attempts = 5

// Waits between attempts double from first to longest; a test makes them short.
var (
	firstWait   = 250 * time.Millisecond
	longestWait = 8 * time.Second
	// stallAfter is how long a transfer may go without a byte.
	stallAfter = time.Minute
)

var (
	// errStalled ends a transfer on which nothing moves.
	errStalled = errors.New("nothing was transferred for too long")
	// errShort is an answer with fewer bytes than the object has.
	errShort = errors.New("the connection ended before the object did")
)

// retry does something until it is done, fails for good, or failed often enough.
func retry(ctx context.Context, do func() error) error {
	wait := firstWait
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil || attempt == attempts || ctx.Err() != nil || !transient(err) {
			return err
		}
		// Half of it by chance, so that processes that failed together do not come back together.
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
		wait = min(2*wait, longestWait)
	}
}

// watched is a reader that ends its context when no byte came for stallAfter. At the end
// of what it reads it stops looking.
type watched struct {
	io.Reader
	timer *time.Timer
}

// watch begins to look at the transfer of r under the context that it returns.
func watch(ctx context.Context, r io.Reader) (context.Context, *watched, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{Reader: r, timer: time.AfterFunc(stallAfter, func() { cancel(errStalled) })}
	return ctx, w, func() { w.timer.Stop(); cancel(nil) }
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil {
		w.timer.Stop()
	} else {
		w.timer.Reset(stallAfter)
	}
	return n, err
}

// stalled adds the cause to an error under a context that watch ended.
func stalled(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errors.Join(errStalled, err)
	}
	return err
}
