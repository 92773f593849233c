package loss

import (
	"fmt"
	"math"
	"strings"
)

// A Divergence turns the log-ratio u of a completion into its score
// (f-DPO, arXiv:2309.16240, table 1, up to constants that cancel in Δ).
type Divergence int

const (
	// ReverseKL is s = u, the divergence of DPO itself.
	ReverseKL Divergence = iota
	// ForwardKL is s = -exp(-u).
	ForwardKL
	// JS is s = log σ(u), Jensen-Shannon.
	JS
	// Alpha is s = exp((a-1)u)/(a-1), and u where a = 1.
	Alpha
)

var divergenceNames = [...]string{"reverse_kl", "forward_kl", "js", "alpha"}

func divergenceList() string { return strings.Join(divergenceNames[:], ", ") }

// String returns the name [ParseDivergence] reads.
func (d Divergence) String() string {
	if d < 0 || int(d) >= len(divergenceNames) {
		return fmt.Sprintf("Divergence(%d)", int(d))
	}
	return divergenceNames[d]
}

// ParseDivergence reads reverse_kl, forward_kl, js or alpha.
func ParseDivergence(name string) (Divergence, error) {
	for d, known := range divergenceNames {
		if name == known {
			return Divergence(d), nil
		}
	}
	return 0, fmt.Errorf("loss: divergence is %q, want one of %s", name, divergenceList())
}

// maxExponent bounds exponents so that every finite log-ratio has a finite score.
const maxExponent = 80

// score returns the score of log-ratio u, its derivative, and whether an exponent was
// clamped; the derivative of a clamped score is 0.
func (o *Options) score(u float64) (s, ds float64, clamped bool) {
	switch o.Divergence {
	case ForwardKL:
		e, clamped := clampedExp(-u)
		if clamped {
			return -e, 0, true
		}
		return -e, e, false
	case JS:
		return logSigmoid(u), sigmoid(-u), false
	case Alpha:
		a := o.DivergenceAlpha - 1
		if a == 0 {
			return u, 1, false
		}
		e, clamped := clampedExp(a * u)
		if clamped {
			return e / a, 0, true
		}
		return e / a, e, false
	default:
		return u, 1, false
	}
}

func clampedExp(x float64) (e float64, clamped bool) {
	if x > maxExponent {
		return math.Exp(maxExponent), true
	}
	return math.Exp(x), false
}

// logSigmoid returns log σ(x). It is finite for every finite x: the textbook
// form log(1/(1+exp(-x))) is -Inf at x = -800, where the true value is -800.
func logSigmoid(x float64) float64 {
	return math.Min(x, 0) - math.Log1p(math.Exp(-math.Abs(x)))
}

// sigmoid returns σ(x) without overflow and without cancellation at either end.
func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}
