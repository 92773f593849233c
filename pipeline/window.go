package pipeline

import (
	"context"
	"errors"
	"io"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// What a window holds at most, beside cfg.PartPairs: tokens bound the time that a
// kill can lose, bytes of features the memory.
const (
	windowTokens = 1 << 16
	windowBytes  = 64 << 20
)

// window collects the pairs of the next part. end says that no more follow. What
// goes into a window depends on the rows alone, so a resumed pass makes the
// same parts.
func (p *precompute) window(ctx context.Context, s *source) (window []encode.Pair, end bool, err error) {
	var tokens, bytes int64
	for len(window) < p.cfg.PartPairs && tokens < windowTokens && bytes < windowBytes {
		if p.cfg.Limit > 0 && p.kept+int64(len(window)) == p.cfg.Limit {
			return window, true, p.checkRows(true)
		}
		pair, bad, err := s.next(ctx)
		if errors.Is(err, io.EOF) {
			return window, true, p.checkRows(true)
		}
		if err != nil {
			return nil, false, err
		}
		p.position.Rows++
		if bad != nil {
			if err := p.drop(bad); err != nil {
				return nil, false, err
			}
			continue
		}
		p.position.Apart += count(pair.Apart)
		p.position.Truncated += count(pair.Truncated)
		completion := int64(len(pair.Chosen) + len(pair.Rejected))
		tokens += completion + p.promptTokens(window, pair)
		bytes += 4 * completion * int64(p.ref.vocabulary.D)
		window = append(window, pair)
	}
	return window, false, p.checkRows(false)
}

// promptTokens is about how many tokens of a pair's prompt have to be run: where the model can go on
// behind a cache, once what differs from the prompt before it.
func (p *precompute) promptTokens(window []encode.Pair, pair encode.Pair) int64 {
	n := int64(len(pair.Prompt))
	if p.ref.backbone.Traits().Continuation == models.NoContinuation {
		return 2 * n
	}
	if len(window) > 0 {
		n -= int64(shared(window[len(window)-1].Prompt, pair.Prompt))
	}
	return n
}

func count(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// drop counts an unusable row.
func (p *precompute) drop(bad *datasets.RowError) error {
	if p.cfg.Strict {
		return bad
	}
	p.position.Dropped.Add(bad)
	return nil
}

// checkRows ends the pass when too many rows are unusable: at the end, or as soon
// as the rows that are left can't make up for it.
func (p *precompute) checkRows(end bool) error {
	read, bad := p.position.Rows, p.position.Dropped.Rows()
	if !end {
		if read = p.rows.n.Load(); read == 0 {
			return nil // not known yet
		}
	}
	if float64(bad) <= p.cfg.MaxBadFrac*float64(read) && (bad == 0 || !p.cfg.Strict) {
		return nil
	}
	e := &BadDataError{Read: p.position.Rows, Bad: bad, Max: p.cfg.MaxBadFrac, First: p.firstBad()}
	if p.cfg.Strict {
		e.Max = 0
	}
	return e
}

// firstBad is the first unusable row, of an earlier process perhaps; nil where
// there is none.
func (p *precompute) firstBad() *datasets.RowError {
	drops := p.position.Dropped.Drops
	if len(drops) == 0 || len(drops[0].First) == 0 {
		return nil
	}
	d, at := drops[0], drops[0].First[0]
	return &datasets.RowError{File: at.File, Row: at.Row, Column: at.Column, Reason: d.Reason, Detail: at.Detail}
}

// noRows says why there is nothing to cache.
func (p *precompute) noRows() error {
	if p.position.Rows == 0 {
		return &NoRowsError{p.cfg.Data}
	}
	return &BadDataError{Read: p.position.Rows, Bad: p.position.Dropped.Rows(), Max: p.cfg.MaxBadFrac, First: p.firstBad()}
}
