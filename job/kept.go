package job

import (
	"context"
	"os"
)

// Kept is what a job file names elsewhere, in a store, and a run writes: its caches and its runs.
// The run works in folders of this machine, which [Options.Locate] has made and written into the
// config; what they hold is written back where it is whole, and brought where it is needed. Paths
// are of this machine: a cache, the folder of a run, or a file or folder in that. What lies on
// this machine alone is none of its business.
type Kept interface {
	// Guard returns a context that ends when another machine took the job over.
	Guard(ctx context.Context) (context.Context, context.CancelFunc)
	// Has reports whether a path is there, or would be if it were brought.
	Has(path string) bool
	// Bring makes a path be there, where there is such a thing.
	Bring(ctx context.Context, path string) error
	// Save writes back what is at a path: all of a cache or, of one that is not finished, what
	// another machine can go on with; the files of a run's folder; all of a folder in that.
	Save(ctx context.Context, path string) error
	// Remove removes a folder of a run from where it is kept.
	Remove(ctx context.Context, path string) error
	// Named puts what the job file names in the place of this machine's folders.
	Named(text string) string
	// Close gives everything free.
	Close() error
}

// here is Kept where nothing is elsewhere.
type here struct{}

func (here) Guard(ctx context.Context) (context.Context, context.CancelFunc) {
	return ctx, func() {}
}

func (here) Has(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (here) Bring(context.Context, string) error  { return nil }
func (here) Save(context.Context, string) error   { return nil }
func (here) Remove(context.Context, string) error { return nil }
func (here) Named(text string) string             { return text }
func (here) Close() error                         { return nil }
