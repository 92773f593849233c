package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// scorer runs a head over cached pairs: token log-probs, the objective's loss
// and, in training, the gradient. Training and evaluation share it, so that
// they can't disagree.
type scorer struct {
	head      models.Head
	engine    models.Engine
	objective *loss.Objective
	limit     int // tokens of a micro-batch

	micro  microBatch
	tokens models.Tokens
	sides  []side         // two for each pair: chosen, rejected
	each   []loss.Metrics // of each pair
	pairs  loss.Pairs
	terms  loss.Terms
	coef   []float64
}

// side holds per-token values of one completion.
type side struct {
	logps, logSumSq, coef []float64
}

func newScorer(head models.Head, engine models.Engine, objective *loss.Objective, limit int) *scorer {
	if limit == 0 {
		limit = microTokens(engine.Vocabulary().V)
	}
	return &scorer{head: head, engine: engine, objective: objective, limit: limit}
}

// score adds the metrics of an optimizer batch to window and, when grad is set,
// its gradient to the head's; the metrics of each pair alone are then in s.each.
// The loss is the batch's whatever the packing: where the objective is a sum over
// pairs and every pair fits into a micro-batch, each micro-batch goes forward and
// backward once; else all go forward first, and again for their gradient.
func (s *scorer) score(ctx context.Context, batch []refcache.Row, window *loss.Metrics, grad bool) error {
	micros, whole := layout(batch, s.limit)
	groups := [][][]span{micros}
	if whole && s.objective.Separable() {
		groups = groups[:0]
		for _, m := range micros {
			groups = append(groups, [][]span{m})
		}
	}
	s.resize(batch)
	var totals loss.Totals
	for i := range batch {
		totals.Add(float64(batch[i].Weight), len(batch[i].Chosen))
	}
	for _, group := range groups {
		for _, spans := range group {
			if err := s.forward(ctx, batch, spans); err != nil {
				return err
			}
			s.collect()
		}
		first, last := group[0][0].pair, lastPair(group)
		s.reduce(batch, first, last, totals)
		for i := first; i <= last; i++ {
			window.Merge(&s.each[i])
		}
		if !grad {
			continue
		}
		for _, spans := range group {
			if err := s.backward(ctx, batch, spans, len(group) > 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func lastPair(group [][]span) int {
	spans := group[len(group)-1]
	return spans[len(spans)-1].pair
}

// resize makes room for the token values of a batch.
func (s *scorer) resize(batch []refcache.Row) {
	s.each = slices.Grow(s.each[:0], len(batch))[:len(batch)]
	clear(s.each)
	s.sides = slices.Grow(s.sides[:0], 2*len(batch))[:2*len(batch)]
	for i := range s.sides {
		n := len(completion(&batch[i/2], i%2 == 0))
		for _, v := range []*[]float64{&s.sides[i].logps, &s.sides[i].logSumSq, &s.sides[i].coef} {
			*v = slices.Grow((*v)[:0], n)[:n]
		}
	}
}

func (s *scorer) side(sp span) *side {
	if sp.chosen {
		return &s.sides[2*sp.pair]
	}
	return &s.sides[2*sp.pair+1]
}

// forward scores one micro-batch.
func (s *scorer) forward(ctx context.Context, batch []refcache.Row, spans []span) error {
	s.micro.fill(batch, spans, s.engine.Vocabulary().D)
	if err := models.Score(ctx, s.engine, s.head, s.micro.rows, &s.tokens); err != nil {
		return fmt.Errorf("head forward: %w", err)
	}
	return nil
}

// collect hands the token values of the last forward pass to their pairs.
func (s *scorer) collect() {
	for _, sp := range s.micro.spans {
		n := sp.to - sp.from
		end := sp.at + n
		copy(s.side(sp).logps[sp.from:sp.to], s.tokens.Logps[sp.at:end])
		copy(s.side(sp).logSumSq[sp.from:sp.to], s.tokens.LogSumSq[sp.at:end])
		right := 0
		for i := sp.at; i < end; i++ {
			if s.tokens.Top[i] == s.micro.rows.Targets[i] {
				right++
			}
		}
		s.each[sp.pair].AddTokens(sp.chosen, n, right, s.tokens.Entropy[sp.at:end], s.tokens.KL[sp.at:end])
	}
}

// reduce turns token log-probs of pairs first to last into losses, metrics and,
// per token, ∂L/∂logp.
func (s *scorer) reduce(batch []refcache.Row, first, last int, totals loss.Totals) {
	s.objective.Resize(&s.pairs, last-first+1)
	for i := first; i <= last; i++ {
		c, r := &s.sides[2*i], &s.sides[2*i+1]
		tokens := loss.PairTokens{
			Chosen: c.logps, Rejected: r.logps,
			RefChosen: batch[i].ChosenRefLogps, RefRejected: batch[i].RejectedRefLogps,
			ChosenLogSumSq: c.logSumSq, RejectedLogSumSq: r.logSumSq,
			Weight: float64(batch[i].Weight),
		}
		s.objective.Set(&s.pairs, i-first, &tokens)
		s.each[i].AddDrift(&tokens)
	}
	s.objective.Terms(&s.terms, &s.pairs, totals)
	for i := first; i <= last; i++ {
		s.each[i].AddPair(s.objective, &s.pairs, &s.terms, i-first)
		s.objective.Coefs(s.sides[2*i].coef, s.sides[2*i+1].coef, &s.terms, i-first)
	}
}

// backward adds the gradient of one micro-batch; again says that another one
// went forward since.
func (s *scorer) backward(ctx context.Context, batch []refcache.Row, spans []span, again bool) error {
	if again {
		if err := s.forward(ctx, batch, spans); err != nil {
			return err
		}
	}
	s.coef = s.coef[:0]
	for _, sp := range spans {
		s.coef = append(s.coef, s.side(sp).coef[sp.from:sp.to]...)
	}
	if err := s.head.Backward(ctx, s.engine, s.coef); err != nil {
		return fmt.Errorf("head backward: %w", err)
	}
	return nil
}
