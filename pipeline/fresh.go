package pipeline

import (
	"context"
	"fmt"
	"math"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
)

// freshTolerance is how far a token log-prob of the fresh head may be from the
// cached one, nats. The cache takes them from the rounded features by the same
// arithmetic, so only the float32 rounding of another engine or thread count is left,
// about 1e-6 of logits around 20; features of another model are off by 0.1 or more.
const freshTolerance = 1e-3

// A FreshHeadError says that training would not start at the reference.
type FreshHeadError struct {
	// Pair, Side and Token say where; Policy and Reference are the log-probs, nats.
	Pair              string
	Side              string
	Token             int
	Policy, Reference float64
}

func (e *FreshHeadError) Error() string {
	return fmt.Sprintf("pipeline: the untrained head does not give the cached reference log-probs: "+
		"pair %s, %s token %d: %.6f, want %.6f ± %g: the cache's features, head and log-probs don't belong together",
		e.Pair, e.Side, e.Token, e.Policy, e.Reference, freshTolerance)
}

// checkFresh scores the first batch under the untrained heads of runs, each of which must be
// the reference.
func (s *stream) checkFresh(ctx context.Context, runs []*trainer) error {
	if len(runs) == 0 {
		return nil
	}
	walk := epochWalk{cache: s.cache.Reader, split: s.part.split, order: newOrder(s.cache.Len(), s.cfgs[0].Seed, 0)}
	numbers, err := walk.take(min(int64(s.cfgs[0].BatchPairs), s.part.train))
	if err != nil {
		return err
	}
	batch := make([]refcache.Row, len(numbers))
	if err := s.cache.read(ctx, numbers, batch); err != nil {
		return err
	}
	scorers := scorersOf(runs)
	if err := s.product.score(ctx, batch, scorers, false); err != nil {
		return err
	}
	for _, one := range scorers {
		if err := one.isReference(batch); err != nil {
			return err
		}
	}
	return nil
}

// isReference checks what an untrained head made of a batch: every token's log-prob, and the
// loss that the objective then has (ln 2 for sigmoid).
func (s *scorer) isReference(batch []refcache.Row) error {
	for i := range s.sides {
		row, chosen := &batch[i/2], i%2 == 0
		_, ref, _ := completionRow(row, chosen)
		for k, p := range s.sides[i].logps {
			// Written so that NaN fails.
			if !(math.Abs(p-float64(ref[k])) <= freshTolerance) {
				return &FreshHeadError{row.ID.String(), sideName(chosen), k, p, float64(ref[k])}
			}
		}
	}
	want, has := s.objective.InitialLoss()
	weight := float32(0)
	for i := range batch {
		weight += batch[i].Weight
	}
	var window loss.Metrics
	s.addTo(&window)
	// Pairs without weight have no loss.
	if got := window.Means().Loss; has && weight > 0 && !(math.Abs(got-want) <= freshTolerance*max(1, math.Abs(want))) {
		return fmt.Errorf("pipeline: the untrained head's %s loss is %.7f, want %.7f", s.objective, got, want)
	}
	return nil
}

func sideName(chosen bool) string {
	if chosen {
		return "chosen"
	}
	return "rejected"
}
