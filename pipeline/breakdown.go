package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
)

const (
	// maxSources bounds the sources that are told apart; pairs of later ones are
	// counted under otherSources.
	maxSources   = 100
	otherSources = "(other)"
	noSource     = "(none)"
	// maxGaps bounds the pairs whose score gaps are kept, 16 bytes each.
	maxGaps = 1 << 20
	// gapBuckets of about as many pairs each.
	gapBuckets = 4
)

// A SourceSlice tells how the pairs of one source fare.
type SourceSlice struct {
	Source string `json:"source"`
	Pairs  int    `json:"pairs"`
	// Accuracy is the share of pairs whose chosen reward is strictly higher, Margin the mean
	// reward margin.
	Accuracy float64 `json:"accuracy"`
	Margin   float64 `json:"margin"`
}

// A GapSlice tells how pairs fare whose scores differ by so much.
type GapSlice struct {
	// From and To are the least and the greatest score_chosen - score_rejected.
	From     float64 `json:"from"`
	To       float64 `json:"to"`
	Pairs    int     `json:"pairs"`
	Accuracy float64 `json:"accuracy"`
}

// breakdown joins the pairs of a cache with the data they were read from and groups
// them by what the data says beside the texts. A cache is in input order, so
// both are read once, side by side.
type breakdown struct {
	data    *datasets.Reader
	sources map[string]*loss.Metrics
	gaps    []scoredPair
}

type scoredPair struct {
	gap   float64
	right bool
}

// openBreakdown opens the data of a cache, under the columns it was read by; other data
// is refused.
func openBreakdown(ctx context.Context, paths []string, mix []datasets.Share, m refcache.Manifest) (*breakdown, error) {
	sum, err := datasets.Fingerprint(ctx, paths, mix...)
	if err != nil {
		return nil, &DataError{err}
	}
	if err := m.Check(map[string]string{"data": sum}); err != nil {
		return nil, err
	}
	opt := datasets.DefaultOptions()
	opt.Mix = mix
	if err := json.Unmarshal([]byte(m.Identity["columns"]), &opt.Columns); err != nil {
		return nil, fmt.Errorf("pipeline: columns of the cache: %w", err)
	}
	data, err := datasets.Open(paths, opt)
	if err != nil {
		return nil, &DataError{err}
	}
	return &breakdown{data: data, sources: map[string]*loss.Metrics{}}, nil
}

func (b *breakdown) close() error { return b.data.Close() }

// add counts the pairs of a batch, the next ones of the cache, by their metrics.
func (b *breakdown) add(ctx context.Context, rows []refcache.Row, each []loss.Metrics) error {
	for i := range rows {
		pair, err := b.seek(ctx, rows[i].ID)
		if err != nil {
			return err
		}
		b.count(&pair, &each[i])
	}
	return nil
}

// seek reads on to the pair of that id.
func (b *breakdown) seek(ctx context.Context, id datasets.ID) (datasets.Pair, error) {
	for {
		pair, err := b.data.Next(ctx)
		var bad *datasets.RowError
		switch {
		case errors.As(err, &bad):
		case errors.Is(err, io.EOF):
			return pair, fmt.Errorf("pipeline: pair %s of the cache is not in the data, or not in this order", id)
		case err != nil:
			return pair, &DataError{err}
		case pair.ID == id:
			return pair, nil
		}
	}
}

func (b *breakdown) count(pair *datasets.Pair, m *loss.Metrics) {
	source := pair.Source
	if source == "" {
		source = noSource
	}
	if b.sources[source] == nil && len(b.sources) >= maxSources {
		source = otherSources
	}
	if b.sources[source] == nil {
		b.sources[source] = new(loss.Metrics)
	}
	b.sources[source].Merge(m)
	if pair.ScoreChosen != nil && pair.ScoreRejected != nil && len(b.gaps) < maxGaps {
		b.gaps = append(b.gaps, scoredPair{*pair.ScoreChosen - *pair.ScoreRejected, m.Means().RewardsAccuracies == 1})
	}
}

// bySource lists the sources, those with most pairs first; it is empty where the data
// names none.
func (b *breakdown) bySource() []SourceSlice {
	out := []SourceSlice{}
	if len(b.sources) == 1 && b.sources[noSource] != nil {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(b.sources)) {
		m := b.sources[name].Means()
		out = append(out, SourceSlice{name, m.Pairs, m.RewardsAccuracies, m.RewardsMargins})
	}
	slices.SortStableFunc(out, func(x, y SourceSlice) int { return cmp.Compare(y.Pairs, x.Pairs) })
	return out
}

// byGap splits the pairs into up to four of about the same size by their score gap;
// pairs of one gap stay together.
func (b *breakdown) byGap() []GapSlice {
	out := []GapSlice{}
	slices.SortStableFunc(b.gaps, func(x, y scoredPair) int { return cmp.Compare(x.gap, y.gap) })
	n := len(b.gaps)
	for from, k := 0, 1; from < n; k++ {
		to := n * k / gapBuckets
		if to <= from {
			continue // earlier pairs of one gap took this bucket too
		}
		for to < n && b.gaps[to].gap == b.gaps[to-1].gap {
			to++
		}
		right := 0
		for _, p := range b.gaps[from:to] {
			if p.right {
				right++
			}
		}
		out = append(out, GapSlice{b.gaps[from].gap, b.gaps[to-1].gap, to - from, float64(right) / float64(to-from)})
		from = to
	}
	return out
}
