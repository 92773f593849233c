package pipeline

import (
	"context"
	"fmt"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// scorer is what one head and its objective make of a batch that [product] runs: token
// log-probs, losses, metrics and, in training, the gradient. Training and evaluation share
// it, so that they can't disagree.
type scorer struct {
	head      models.Head
	objective *loss.Objective
	twice     bool // goes forward again for its gradient

	tokens models.Tokens
	totals loss.Totals
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

func newScorer(head models.Head, objective *loss.Objective) *scorer {
	return &scorer{head: head, objective: objective}
}

// addTo adds the metrics of the batch to window, pair by pair.
func (s *scorer) addTo(window *loss.Metrics) {
	for i := range s.each {
		window.Merge(&s.each[i])
	}
}

// begin makes room for the token values of a batch.
func (s *scorer) begin(batch []refcache.Row) {
	s.each = resized(s.each, len(batch))
	clear(s.each)
	s.sides = resized(s.sides, 2*len(batch))
	for i := range s.sides {
		n := len(completion(&batch[i/2], i%2 == 0))
		for _, v := range []*[]float64{&s.sides[i].logps, &s.sides[i].logSumSq, &s.sides[i].coef} {
			*v = resized(*v, n)
		}
	}
	s.totals = loss.Totals{}
	for i := range batch {
		s.totals.Add(float64(batch[i].Weight), len(batch[i].Chosen))
	}
}

func (s *scorer) side(sp span) *side {
	if sp.chosen {
		return &s.sides[2*sp.pair]
	}
	return &s.sides[2*sp.pair+1]
}

// forward scores the micro-batch that is loaded.
func (s *scorer) forward(ctx context.Context, e models.Engine) error {
	if err := s.head.Forward(ctx, e, &s.tokens); err != nil {
		return fmt.Errorf("head forward: %w", err)
	}
	return nil
}

// collect hands the token values of the last forward pass to their pairs.
func (s *scorer) collect(m *microBatch) {
	for _, sp := range m.spans {
		n := sp.to - sp.from
		end := sp.at + n
		copy(s.side(sp).logps[sp.from:sp.to], s.tokens.Logps[sp.at:end])
		copy(s.side(sp).logSumSq[sp.from:sp.to], s.tokens.LogSumSq[sp.at:end])
		right := 0
		for i := sp.at; i < end; i++ {
			if s.tokens.Top[i] == m.rows.Targets[i] {
				right++
			}
		}
		s.each[sp.pair].AddTokens(sp.chosen, n, right, s.tokens.Entropy[sp.at:end], s.tokens.KL[sp.at:end])
	}
}

// reduce turns token log-probs of pairs first to last into losses, metrics and,
// per token, ∂L/∂logp.
func (s *scorer) reduce(batch []refcache.Row, first, last int) {
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
	s.objective.Terms(&s.terms, &s.pairs, s.totals)
	for i := first; i <= last; i++ {
		s.each[i].AddPair(s.objective, &s.pairs, &s.terms, i-first)
		s.objective.Coefs(s.sides[2*i].coef, s.sides[2*i+1].coef, &s.terms, i-first)
	}
}

// backward adds the gradient of the micro-batch that went forward last.
func (s *scorer) backward(ctx context.Context, e models.Engine, spans []span) error {
	s.coef = s.coef[:0]
	for _, sp := range spans {
		s.coef = append(s.coef, s.side(sp).coef[sp.from:sp.to]...)
	}
	if err := s.head.Backward(ctx, e, s.coef); err != nil {
		return fmt.Errorf("head backward: %w", err)
	}
	return nil
}
