package loss

import (
	"fmt"
	"math"
)

// A PairTokens holds the token log-probs (nats) of one pair.
type PairTokens struct {
	// Chosen [n_c] and Rejected [n_r] are the policy's.
	Chosen, Rejected []float64
	// RefChosen and RefRejected are the reference's, as the cache keeps them.
	RefChosen, RefRejected []float32
	// ChosenLogSumSq and RejectedLogSumSq are log Σ_v π² per token; read by WPO only.
	ChosenLogSumSq, RejectedLogSumSq []float64
	// Weight is the pair's weight.
	Weight float64
}

// Resize makes p hold n pairs and all that the objective reads, reusing its slices.
// Rows are then filled by Set.
func (o *Objective) Resize(p *Pairs, n int) {
	for _, s := range []*[]float64{&p.PolicyChosen, &p.PolicyRejected, &p.RefChosen, &p.RefRejected, &p.Weight} {
		*s = resize(*s, n)
	}
	p.ChosenTokens, p.RejectedTokens = resize(p.ChosenTokens, n), resize(p.RejectedTokens, n)
	p.PlainChosen, p.WPO = sized(p.PlainChosen, n, o.opts.LDAlpha != 1), sized(p.WPO, n, o.opts.WPO)
}

func sized(s []float64, n int, used bool) []float64 {
	if !used {
		return nil
	}
	return resize(s, n)
}

// Set reduces token log-probs to row i of p: sums over tokens, of which those past the
// shorter completion weigh ld_alpha under policy and reference alike. It panics where
// policy and reference differ in length.
func (o *Objective) Set(p *Pairs, i int, t *PairTokens) {
	nc, nr := len(t.Chosen), len(t.Rejected)
	if len(t.RefChosen) != nc || len(t.RefRejected) != nr {
		panic(fmt.Sprintf("loss: pair %d has %d and %d policy tokens, %d and %d reference tokens", i, nc, nr, len(t.RefChosen), len(t.RefRejected)))
	}
	alpha, shared := o.opts.LDAlpha, min(nc, nr)
	p.PolicyChosen[i], p.PolicyRejected[i] = Sum(t.Chosen, alpha, shared), Sum(t.Rejected, alpha, shared)
	p.RefChosen[i], p.RefRejected[i] = Sum(t.RefChosen, alpha, shared), Sum(t.RefRejected, alpha, shared)
	p.ChosenTokens[i], p.RejectedTokens[i] = nc, nr
	p.Weight[i] = t.Weight
	if p.PlainChosen != nil {
		p.PlainChosen[i] = Sum(t.Chosen, 1, nc)
	}
	if p.WPO != nil {
		p.WPO[i] = WPOWeight(t.Chosen, t.ChosenLogSumSq) * WPOWeight(t.Rejected, t.RejectedLogSumSq)
	}
}

// Coefs writes ∂L/∂p_t of pair i's tokens: chosen [n_c] and rejected [n_r]. They are
// what the head multiplies by ∂p_t/∂z = onehot(y_t) - softmax(z_t).
func (o *Objective) Coefs(chosen, rejected []float64, t *Terms, i int) {
	shared := min(len(chosen), len(rejected))
	spread(chosen, t.GradChosen[i], o.opts.LDAlpha, shared)
	spread(rejected, t.GradRejected[i], o.opts.LDAlpha, shared)
	for k := range chosen {
		chosen[k] += t.GradPlain[i]
	}
}

// spread gives each of the first shared tokens grad and each later one alpha·grad.
func spread(dst []float64, grad, alpha float64, shared int) {
	for k := range dst {
		dst[k] = grad
		if k >= shared {
			dst[k] = alpha * grad
		}
	}
}

// Sum returns Σ logps[t], with tokens from shared on weighing alpha. The sum is
// float64 and runs from the first token to the last.
func Sum[F float32 | float64](logps []F, alpha float64, shared int) float64 {
	var head, tail float64
	for t, p := range logps {
		if t < shared {
			head += float64(p)
		} else {
			tail += float64(p)
		}
	}
	if alpha == 1 {
		return head + tail
	}
	return head + alpha*tail
}

// WPOWeight returns exp(mean_t(p_t - log Σ_v π²)), the weight of one completion in
// WPO (arXiv:2406.11827). It panics where the lengths differ.
func WPOWeight(logps, logSumSq []float64) float64 {
	if len(logps) != len(logSumSq) {
		panic(fmt.Sprintf("loss: %d token log-probs, %d sums of squares", len(logps), len(logSumSq)))
	}
	var sum float64
	for t, p := range logps {
		sum += p - logSumSq[t]
	}
	return math.Exp(sum / float64(len(logps)))
}
