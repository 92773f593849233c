package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// reportData describes the pairs of a cache.
type reportData struct {
	Counts    refcache.Counts
	Drops     []datasets.Drop
	Histogram []plot
	// Looked is how many pairs the histograms are of.
	Looked int
}

// maxLooked bounds the pairs whose lengths are looked at: they are spread evenly
// over the cache.
const maxLooked = 20_000

// describePairs looks at the cache in dir; nil where it is gone, not finished, or no longer
// that of identity.
func describePairs(ctx context.Context, dir string, identity map[string]string) (*reportData, error) {
	cache, err := refcache.Open(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, refcache.ErrNotCache) || errors.Is(err, refcache.ErrIncomplete) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	if cache.Manifest().Check(identity) != nil {
		return nil, nil
	}
	d := &reportData{Counts: cache.Manifest().Counts}
	d.Drops = d.Counts.Dropped.Drops
	var lengths [3][]float64
	var row refcache.Row
	step := max(1, (cache.Len()+maxLooked-1)/maxLooked)
	for i := int64(0); i < cache.Len(); i += step {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := cache.Ids(i, &row); err != nil {
			return nil, err
		}
		for k, ids := range [][]int32{row.Prompt, row.Chosen, row.Rejected} {
			lengths[k] = append(lengths[k], float64(len(ids)))
		}
	}
	d.Looked = len(lengths[0])
	// One scale for all three, so that they compare.
	longest := slices.Max(append(slices.Concat(lengths[:]...), 1))
	for k, title := range []string{"prompt tokens", "chosen tokens", "rejected tokens"} {
		d.Histogram = append(d.Histogram, histogram(title, lengths[k], longest))
	}
	return d, nil
}
