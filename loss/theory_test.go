package loss

import (
	"math"
	"testing"
)

// theoryTol is where plain gradient descent is stopped, not a limit of the arithmetic.
const theoryTol = 1e-6

// TestClosedForm trains a softmax over K answers on the exact Bradley-Terry preferences
// of a known reward and finds the policy that maximises reward - β KL:
//
//	π(y) = π_ref(y) exp(r(y)/β) / Z
func TestClosedForm(t *testing.T) {
	t.Parallel()
	reward := []float64{0.3, -0.2, 0.9, 0, -0.7}
	reference := []float64{0.1, 0.4, 0.05, 0.3, 0.15}
	for _, beta := range []float64{0.1, 0.5, 2} {
		opts := DefaultOptions()
		opts.Beta = beta
		policy := descend(t, mustParse(t, "sigmoid", opts), reward, reference)
		var z float64
		for y := range reward {
			z += reference[y] * math.Exp(reward[y]/beta)
		}
		for y := range reward {
			near(t, "π", math.Exp(policy[y]), reference[y]*math.Exp(reward[y]/beta)/z, theoryTol)
			implicit := beta * (policy[y] - math.Log(reference[y]) - policy[0] + math.Log(reference[0]))
			near(t, "reward difference", implicit, reward[y]-reward[0], theoryTol)
		}
	}
}

// descend returns log π after gradient descent on the answers' scores; every ordered
// pair of answers is in the batch, weighted by the probability of that preference.
func descend(t *testing.T, o *Objective, reward, reference []float64) []float64 {
	t.Helper()
	k := len(reward)
	var p Pairs
	o.Resize(&p, k*(k-1))
	each := func(f func(i, w, l int)) {
		i := 0
		for w := range k {
			for l := range k {
				if w != l {
					f(i, w, l)
					i++
				}
			}
		}
	}
	each(func(i, w, l int) {
		p.Weight[i] = sigmoid(reward[w] - reward[l])
		p.RefChosen[i], p.RefRejected[i] = math.Log(reference[w]), math.Log(reference[l])
		p.ChosenTokens[i], p.RejectedTokens[i] = 1, 1
	})
	scores, logPolicy, grad := make([]float64, k), make([]float64, k), make([]float64, k)
	var terms Terms
	beta := o.Options().Beta
	for range 4000 {
		logSoftmax(logPolicy, scores)
		each(func(i, w, l int) { p.PolicyChosen[i], p.PolicyRejected[i] = logPolicy[w], logPolicy[l] })
		o.Terms(&terms, &p, p.Totals())
		clear(grad)
		var sum float64
		each(func(i, w, l int) {
			grad[w] += terms.GradChosen[i]
			grad[l] += terms.GradRejected[i]
			sum += terms.GradChosen[i] + terms.GradRejected[i]
		})
		for y := range scores {
			// The curvature along the scores is of order β²/K: the step undoes it.
			scores[y] -= 4 / (beta * beta) * (grad[y] - sum*math.Exp(logPolicy[y]))
		}
	}
	return logPolicy
}

func logSoftmax(dst, scores []float64) {
	var sum float64
	for _, x := range scores {
		sum += math.Exp(x)
	}
	for y, x := range scores {
		dst[y] = x - math.Log(sum)
	}
}
