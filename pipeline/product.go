package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// product scores cached pairs under any number of heads: it packs them into micro-batches
// and has the engine multiply each with the frozen matrix once for all heads.
type product struct {
	engine models.Engine
	limit  int // rows of a micro-batch
	micro  microBatch
}

func newProduct(engine models.Engine, limit int) *product {
	if limit == 0 {
		limit = microTokens(engine.Vocabulary().V)
	}
	return &product{engine: engine, limit: limit}
}

// score scores an optimizer batch under every scorer's head and, when grad is set, adds its
// gradient to the head's. A head's figures are those it would have alone, and the batch's
// whatever the packing: where the objective is a sum over pairs and every pair fits into a
// micro-batch, or the batch is one, each micro-batch goes forward and backward once; else
// all go forward first, and again for their gradient.
func (p *product) score(ctx context.Context, batch []refcache.Row, scorers []*scorer, grad bool) error {
	micros, whole := layout(pairSizes(batch, p.engine.Vocabulary().D), p.limit)
	return p.scoreIn(ctx, batch, micros, whole, scorers, grad)
}

// scoreIn scores a batch in micro-batches that [layout] made.
func (p *product) scoreIn(ctx context.Context, batch []refcache.Row, micros [][]span, whole bool, scorers []*scorer, grad bool) error {
	var twice []*scorer
	for _, s := range scorers {
		s.begin(batch)
		s.twice = len(micros) > 1 && !(whole && s.objective.Separable())
		if s.twice {
			twice = append(twice, s)
		}
	}
	for _, spans := range micros {
		if err := p.first(ctx, batch, spans, scorers, grad); err != nil {
			return err
		}
	}
	for _, s := range twice {
		s.reduce(batch, 0, len(batch)-1)
	}
	if !grad || len(twice) == 0 {
		return nil
	}
	for _, spans := range micros {
		if err := p.second(ctx, batch, spans, twice); err != nil {
			return err
		}
	}
	return nil
}

// first takes a micro-batch forward under every head, and backward under those that need no
// more than its pairs for that.
func (p *product) first(ctx context.Context, batch []refcache.Row, spans []span, scorers []*scorer, grad bool) error {
	if err := p.load(ctx, batch, spans); err != nil {
		return err
	}
	for _, s := range scorers {
		if err := s.forward(ctx, p.engine); err != nil {
			return err
		}
		s.collect(&p.micro)
		if s.twice {
			continue
		}
		s.reduce(batch, spans[0].pair, spans[len(spans)-1].pair)
		if !grad {
			continue
		}
		if err := s.backward(ctx, p.engine, spans); err != nil {
			return err
		}
	}
	return nil
}

// second takes a micro-batch backward under heads whose whole batch went forward before.
func (p *product) second(ctx context.Context, batch []refcache.Row, spans []span, scorers []*scorer) error {
	if err := p.load(ctx, batch, spans); err != nil {
		return err
	}
	for _, s := range scorers {
		if err := s.forward(ctx, p.engine); err != nil {
			return err
		}
		if err := s.backward(ctx, p.engine, spans); err != nil {
			return err
		}
	}
	return nil
}

func (p *product) load(ctx context.Context, batch []refcache.Row, spans []span) error {
	p.micro.fill(batch, spans, p.engine.Vocabulary().D)
	if err := p.engine.Load(ctx, p.micro.rows); err != nil {
		return fmt.Errorf("product with the vocabulary: %w", err)
	}
	return nil
}

// resized is x with n elements, in its own memory where that is enough.
func resized[T any](x []T, n int) []T { return slices.Grow(x[:0], n)[:n] }
