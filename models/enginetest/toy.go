package enginetest

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// completion is one side of a pair: hidden states [T,D], and the tokens they predict.
type completion struct {
	hidden  []float32
	targets []int32
}

// toy is an optimizer batch small enough to differentiate one weight at a time.
type toy struct {
	voc   models.Vocabulary
	pairs [][2]completion // chosen, rejected
}

// rows concatenates the completions of pairs [from,to): chosen, then rejected.
func (y *toy) rows(from, to int) models.Rows {
	var rows models.Rows
	for _, pair := range y.pairs[from:to] {
		for _, c := range pair {
			rows.N += len(c.targets)
			rows.Hidden = append(rows.Hidden, c.hidden...)
			rows.Targets = append(rows.Targets, c.targets...)
		}
	}
	return rows
}

// reference scores all pairs with the frozen head, as a cache would keep it.
func (y *toy) reference(t *testing.T, e models.Engine) []float32 {
	t.Helper()
	var out models.Tokens
	if err := models.Forward(context.Background(), e, y.rows(0, len(y.pairs)), models.Addition{}, &out); err != nil {
		t.Fatal(err)
	}
	ref := make([]float32, len(out.Logps))
	for i, lp := range out.Logps {
		ref[i] = float32(lp)
	}
	return ref
}

// result is what one pass over the batch gives.
type result struct {
	pairs loss.Pairs
	terms loss.Terms
	means loss.Means
}

// pass scores the batch with the head and adds up its gradients, in micro-batches
// of so many pairs. The objective must be separable, or one micro-batch hold all.
func (y *toy) pass(t *testing.T, e models.Engine, h models.Head, o *loss.Objective, ref []float32,
	micro int,
) (all result, batch float64) {
	t.Helper()
	var totals loss.Totals
	for _, pair := range y.pairs {
		totals.Add(1, len(pair[0].targets))
	}
	var m loss.Metrics
	h.ZeroGrad()
	at := 0
	for from := 0; from < len(y.pairs); from += micro {
		to := min(from+micro, len(y.pairs))
		rows := y.rows(from, to)
		rows.RefLogps = ref[at : at+rows.N]
		at += rows.N
		var out models.Tokens
		if err := models.Score(context.Background(), e, h, rows, &out); err != nil {
			t.Fatal(err)
		}
		o.Resize(&all.pairs, to-from)
		y.each(from, to, func(i, c, r, end int) {
			o.Set(&all.pairs, i, &loss.PairTokens{
				Chosen: out.Logps[c:r], Rejected: out.Logps[r:end],
				RefChosen: rows.RefLogps[c:r], RefRejected: rows.RefLogps[r:end],
				ChosenLogSumSq: out.LogSumSq[c:r], RejectedLogSumSq: out.LogSumSq[r:end], Weight: 1,
			})
			right := 0
			for k := c; k < r; k++ {
				if out.Top[k] == rows.Targets[k] {
					right++
				}
			}
			m.AddTokens(true, r-c, right, out.Entropy[c:r], out.KL[c:r])
			m.AddTokens(false, end-r, 0, out.Entropy[r:end], out.KL[r:end])
		})
		o.Terms(&all.terms, &all.pairs, totals)
		m.Add(o, &all.pairs, &all.terms)
		batch += all.terms.Batch
		coef := make([]float64, rows.N)
		y.each(from, to, func(i, c, r, end int) { o.Coefs(coef[c:r], coef[r:end], &all.terms, i) })
		if err := h.Backward(context.Background(), e, coef); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Finish(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	all.means = m.Means()
	return all, batch
}

// each calls do with the place of every pair of [from,to) among the rows: chosen
// is [c,r), rejected [r,end).
func (y *toy) each(from, to int, do func(i, c, r, end int)) {
	at := 0
	for i, pair := range y.pairs[from:to] {
		r := at + len(pair[0].targets)
		end := r + len(pair[1].targets)
		do(i, at, r, end)
		at = end
	}
}

// naiveLoss is the loss of the batch, all in float64, under a policy that turns hidden states
// into logits.
func (y *toy) naiveLoss(o *loss.Objective, policy func(h []float32) []float64) float64 {
	var pairs loss.Pairs
	o.Resize(&pairs, len(y.pairs))
	for i, pair := range y.pairs {
		var side [2][3]float64 // policy, reference, WPO weight
		for k, c := range pair {
			logps, squares := y.score(c, policy)
			refLogps, _ := y.score(c, func(h []float32) []float64 { return y.frozen(widen(h)) })
			side[k] = [3]float64{loss.Sum(logps, 1, 0), loss.Sum(refLogps, 1, 0), loss.WPOWeight(logps, squares)}
		}
		pairs.PolicyChosen[i], pairs.RefChosen[i] = side[0][0], side[0][1]
		pairs.PolicyRejected[i], pairs.RefRejected[i] = side[1][0], side[1][1]
		pairs.ChosenTokens[i], pairs.RejectedTokens[i] = len(pair[0].targets), len(pair[1].targets)
		pairs.Weight[i] = 1
	}
	var terms loss.Terms
	o.Terms(&terms, &pairs, pairs.Totals())
	return terms.Batch
}

// score returns log π(target) and log Σ π² of every token of c.
func (y *toy) score(c completion, policy func(h []float32) []float64) (logps, squares []float64) {
	d := y.voc.D
	for t, target := range c.targets {
		z := policy(c.hidden[t*d : (t+1)*d])
		twice := make([]float64, len(z))
		for v := range z {
			twice[v] = 2 * z[v]
		}
		lse := logSumExp(z)
		logps = append(logps, z[target]-lse)
		squares = append(squares, logSumExp(twice)-2*lse)
	}
	return logps, squares
}

// frozen is W h.
func (y *toy) frozen(h []float64) []float64 {
	z := make([]float64, y.voc.V)
	for v := range z {
		for i, x := range h {
			z[v] += float64(y.voc.Weight[v*y.voc.D+i]) * x
		}
	}
	return z
}

// randomToy draws n pairs of completions of 1 to 4 tokens.
func randomToy(n, v, d int, seed uint64) *toy {
	rng := rand.New(rand.NewPCG(seed, 77))
	draw := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		return x
	}
	y := &toy{voc: models.Vocabulary{V: v, D: d, Scale: 1, Weight: draw(v * d)}}
	for i := range y.voc.Weight {
		y.voc.Weight[i] /= float32(math.Sqrt(float64(d)))
	}
	for range n {
		var pair [2]completion
		for k := range pair {
			tokens := 1 + rng.IntN(4)
			pair[k].hidden = draw(tokens * d)
			for range tokens {
				pair[k].targets = append(pair[k].targets, int32(rng.IntN(v)))
			}
		}
		y.pairs = append(y.pairs, pair)
	}
	return y
}

func mustParse(t *testing.T, spec string, opts loss.Options) *loss.Objective {
	t.Helper()
	o, err := loss.Parse(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
