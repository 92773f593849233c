package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// source streams encoded pairs in input order: one goroutine reads, several
// encode, and the caller receives. Rows that can't be used arrive as findings in
// their place.
type source struct {
	jobs   chan chan encoded
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// passedOver says which files of named folders are not read.
	passedOver []string
}

// encoded is one row of the data: a pair, a finding or the end.
type encoded struct {
	pair encode.Pair
	bad  *datasets.RowError
	err  error // fatal, or io.EOF
}

type encodeJob struct {
	pair datasets.Pair
	out  chan encoded
}

// openSource starts reading after the first skip rows.
func openSource(ctx context.Context, paths []string, opt datasets.Options, enc *encode.Encoder, skip int64) (*source, error) {
	r, err := datasets.Open(paths, opt)
	if err != nil {
		return nil, &DataError{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	s := &source{jobs: make(chan chan encoded, 64*workers), cancel: cancel, passedOver: r.Findings()}
	work := make(chan encodeJob, 64)
	for range workers {
		s.wg.Go(func() {
			for job := range work {
				pair, err := enc.Encode(job.pair)
				job.out <- asEncoded(pair, err)
			}
		})
	}
	s.wg.Go(func() {
		defer r.Close()
		defer close(s.jobs)
		defer close(work)
		s.read(ctx, r, work, skip)
	})
	return s, nil
}

// read sends each row's place in the queue before the row itself is encoded, so that
// the order of the input is kept whatever worker ends first.
func (s *source) read(ctx context.Context, r *datasets.Reader, work chan<- encodeJob, skip int64) {
	for row := int64(0); ; row++ {
		pair, err := r.Next(ctx)
		var bad *datasets.RowError
		ended := err != nil && !errors.As(err, &bad)
		if row < skip && !ended {
			continue
		}
		out := make(chan encoded, 1)
		select {
		case s.jobs <- out:
		case <-ctx.Done():
			return
		}
		switch {
		case ended && !errors.Is(err, io.EOF):
			out <- encoded{err: &DataError{err}}
		case err != nil:
			out <- asEncoded(encode.Pair{}, err)
		default:
			work <- encodeJob{pair, out}
		}
		if ended {
			return
		}
	}
}

func asEncoded(pair encode.Pair, err error) encoded {
	var bad *datasets.RowError
	if errors.As(err, &bad) {
		return encoded{bad: bad}
	}
	return encoded{pair: pair, err: err}
}

// A DataError is a data file that can't be read on.
type DataError struct{ Err error }

func (e *DataError) Error() string { return e.Err.Error() }
func (e *DataError) Unwrap() error { return e.Err }

// next returns the pair or finding of the next row; io.EOF at the end.
func (s *source) next(ctx context.Context) (encode.Pair, *datasets.RowError, error) {
	select {
	case out, open := <-s.jobs:
		if !open {
			if err := context.Cause(ctx); err != nil {
				return encode.Pair{}, nil, err
			}
			return encode.Pair{}, nil, io.EOF
		}
		e := <-out
		return e.pair, e.bad, e.err
	case <-ctx.Done():
		return encode.Pair{}, nil, context.Cause(ctx)
	}
}

// close stops the goroutines and waits for them.
func (s *source) close() {
	s.cancel()
	for range s.jobs { // unblocks the reader
	}
	s.wg.Wait()
}

// A BadDataError ends a stage whose data has too many unusable rows.
type BadDataError struct {
	// Read rows were looked at, Bad of them could not be used, Max is the share allowed.
	Read, Bad int64
	Max       float64
	// First is one of them.
	First *datasets.RowError
}

func (e *BadDataError) Error() string {
	return fmt.Sprintf("pipeline: %d of %d rows can't be used (%.1f %%, allowed are %.1f %%), the first: %v",
		e.Bad, e.Read, 100*float64(e.Bad)/float64(max(e.Read, 1)), 100*e.Max, e.First)
}

// Unwrap returns the first row.
func (e *BadDataError) Unwrap() error {
	if e.First == nil {
		return nil
	}
	return e.First
}

// A NoRowsError is data without a single row.
type NoRowsError struct{ Data []string }

func (e *NoRowsError) Error() string {
	return fmt.Sprintf("pipeline: no rows in %q, want preference pairs", e.Data)
}
