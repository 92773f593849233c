package loss

import (
	"errors"
	"fmt"
	"math"
)

// Options are the parameters of objectives. Start from [DefaultOptions]: a zero
// field means zero, never "the default".
type Options struct {
	// Beta is β > 0, the strength of the pull towards the reference.
	Beta float64
	// LabelSmoothing is ε in [0, 0.5): the share of pairs taken to be mislabelled.
	LabelSmoothing float64
	// Divergence turns log-ratios into scores.
	Divergence Divergence
	// DivergenceAlpha is the coefficient a of [Alpha].
	DivergenceAlpha float64
	// LDAlpha in [0, 1] weighs the tokens past the shorter completion's length
	// (LD-DPO, arXiv:2409.06411); 1 weighs all tokens alike.
	LDAlpha float64
	// WPO multiplies each pair's preference loss by how likely the policy itself
	// is to write it (arXiv:2406.11827), constant in the gradient.
	WPO bool
	// Gamma is simpo's target margin γ ≥ 0.
	Gamma float64
	// NLLWeight ≥ 0 weighs the NLL term inside cpo.
	NLLWeight float64
	// Lambda ≥ 0 is dpop's penalty on a chosen completion below the reference.
	Lambda float64
	// Temperature τ > 0 is discopop's.
	Temperature float64
}

// DefaultOptions returns β 0.1, no smoothing, reverse KL, all tokens alike.
func DefaultOptions() Options {
	return Options{
		Beta: 0.1, Divergence: ReverseKL, DivergenceAlpha: 0.5, LDAlpha: 1,
		Gamma: 0.5, NLLWeight: 1, Lambda: 50, Temperature: 0.05,
	}
}

// Validate reports every field that is out of range at once.
func (o Options) Validate() error {
	var errs []error
	// The conditions are written so that NaN fails them.
	check := func(ok bool, name string, have any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("loss: %s is %v, want %s", name, have, want))
		}
	}
	positive := func(x float64) bool { return x > 0 && x <= math.MaxFloat64 }
	check(positive(o.Beta), "beta", o.Beta, "a finite number > 0")
	check(o.LabelSmoothing >= 0 && o.LabelSmoothing < 0.5, "label smoothing", o.LabelSmoothing, "0 to below 0.5")
	check(o.Divergence <= Alpha, "divergence", o.Divergence, "one of "+divergenceList())
	check(math.Abs(o.DivergenceAlpha) <= 1e3, "divergence alpha", o.DivergenceAlpha, "a number within ±1000")
	check(o.LDAlpha >= 0 && o.LDAlpha <= 1, "ld_alpha", o.LDAlpha, "0 to 1")
	check(o.Gamma == 0 || positive(o.Gamma), "gamma", o.Gamma, "a finite number ≥ 0")
	check(o.NLLWeight == 0 || positive(o.NLLWeight), "NLL weight", o.NLLWeight, "a finite number ≥ 0")
	check(o.Lambda == 0 || positive(o.Lambda), "lambda", o.Lambda, "a finite number ≥ 0")
	check(positive(o.Temperature), "temperature", o.Temperature, "a finite number > 0")
	return errors.Join(errs...)
}
