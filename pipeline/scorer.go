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
	logps, logSumSq, entropy, kl, coef []float64

	right int // how many of its tokens the head finds most probable
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
		s.sides[i].begin(len(completion(&batch[i/2], i%2 == 0)))
	}
	s.totals = loss.Totals{}
	for i := range batch {
		s.totals.Add(float64(batch[i].Weight), len(batch[i].Chosen))
	}
}

// begin makes room for n tokens.
func (d *side) begin(n int) {
	for _, v := range []*[]float64{&d.logps, &d.logSumSq, &d.entropy, &d.kl, &d.coef} {
		*v = resized(*v, n)
	}
	d.right = 0
}

// of calls do for each side that has the tokens of a span.
func (s *scorer) of(sp span, do func(*side)) {
	if sp.chosen {
		do(&s.sides[2*sp.pair])
	}
	if sp.rejected {
		do(&s.sides[2*sp.pair+1])
	}
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
		s.of(sp, func(d *side) { d.collect(sp, &s.tokens, m.rows.Targets) })
	}
}

// collect takes the values of a span's tokens from their rows.
func (d *side) collect(sp span, tokens *models.Tokens, targets []int32) {
	end := sp.at + sp.to - sp.from
	copy(d.logps[sp.from:], tokens.Logps[sp.at:end])
	copy(d.logSumSq[sp.from:], tokens.LogSumSq[sp.at:end])
	copy(d.entropy[sp.from:], tokens.Entropy[sp.at:end])
	copy(d.kl[sp.from:], tokens.KL[sp.at:end])
	for i := sp.at; i < end; i++ {
		if tokens.Top[i] == targets[i] {
			d.right++
		}
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
		s.each[i].AddTokens(true, len(c.logps), c.right, c.entropy, c.kl)
		s.each[i].AddTokens(false, len(r.logps), r.right, r.entropy, r.kl)
		s.each[i].AddDrift(&tokens)
	}
	s.objective.Terms(&s.terms, &s.pairs, s.totals)
	for i := first; i <= last; i++ {
		s.each[i].AddPair(s.objective, &s.pairs, &s.terms, i-first)
		s.objective.Coefs(s.sides[2*i].coef, s.sides[2*i+1].coef, &s.terms, i-first)
	}
}

// backward adds the gradient of the micro-batch that went forward last. A row of both sides
// has the sum of what they want of it.
func (s *scorer) backward(ctx context.Context, e models.Engine, spans []span) error {
	s.coef = resized(s.coef, e.Rows().N)
	clear(s.coef)
	for _, sp := range spans {
		s.of(sp, func(d *side) {
			for i, c := range d.coef[sp.from:sp.to] {
				s.coef[sp.at+i] += c
			}
		})
	}
	if err := s.head.Backward(ctx, e, s.coef); err != nil {
		return fmt.Errorf("head backward: %w", err)
	}
	return nil
}
