package models

import (
	"context"
	"fmt"
	"math"
)

// stretch is the number of parameters that a core goes through at a time.
const stretch = 8192

// stretches runs do for values [lo,hi) of n, all on all cores.
func stretches(n int, do func(task, lo, hi int)) {
	// Background never ends, so there is no error.
	_ = Each(context.Background(), (n+stretch-1)/stretch, func(_, task int) {
		do(task, task*stretch, min((task+1)*stretch, n))
	})
}

// AdamW is Adam with decoupled weight decay (arXiv:1711.05101), step by step as
// PyTorch's AdamW. Moments are float32 as the parameters are, arithmetic is
// float64.
type AdamW struct {
	// Beta1 and Beta2 are the decay rates of the moments, Eps keeps the
	// quotient finite, WeightDecay is λ.
	Beta1, Beta2, Eps, WeightDecay float64

	params  []Param
	steps   int64
	moments []moments
}

// moments are the running means of a parameter's gradient and of its square.
type moments struct{ m, v []float32 }

// NewAdamW returns an optimizer of params with PyTorch's defaults: betas 0.9 and
// 0.999, eps 1e-8, and weight decay 0.01.
func NewAdamW(params []Param) *AdamW {
	o := &AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, params: params}
	for _, p := range params {
		o.moments = append(o.moments, moments{m: make([]float32, len(p.Value)), v: make([]float32, len(p.Value))})
	}
	return o
}

// Steps returns how many steps were taken.
func (o *AdamW) Steps() int64 { return o.steps }

// Step moves every parameter by its gradient g at learning rate lr:
//
//	θ ← θ (1 - lr λ); m ← β₁ m + (1-β₁) g; v ← β₂ v + (1-β₂) g²
//	θ ← θ - lr/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + eps)
func (o *AdamW) Step(lr float64) {
	o.steps++
	t := float64(o.steps)
	// Both sides of the quotient are multiplied by √(1-β₂ᵗ): a division a parameter less.
	root := math.Sqrt(1 - math.Pow(o.Beta2, t))
	size, eps := root*lr/(1-math.Pow(o.Beta1, t)), root*o.Eps
	keep := 1 - lr*o.WeightDecay
	for k, p := range o.params {
		s := o.moments[k]
		stretches(len(p.Grad), func(_, lo, hi int) {
			n := hi - lo
			value, grad, sm, sv := p.Value[lo:][:n], p.Grad[lo:][:n], s.m[lo:][:n], s.v[lo:][:n]
			for i := range value {
				g := float64(grad[i])
				m := o.Beta1*float64(sm[i]) + (1-o.Beta1)*g
				v := o.Beta2*float64(sv[i]) + (1-o.Beta2)*g*g
				sm[i], sv[i] = float32(m), float32(v)
				value[i] = float32(keep*float64(value[i]) - size*m/(math.Sqrt(v)+eps))
			}
		})
	}
}

// GradError is a gradient that is not finite: nothing can be learnt from it.
type GradError struct {
	// Param is the first tensor with such a gradient.
	Param string
	// Norm is the norm of all gradients, NaN or infinite.
	Norm float64
}

// Error names the tensor.
func (e *GradError) Error() string {
	return fmt.Sprintf("models: gradient norm is %v, first in %s", e.Norm, e.Param)
}

// ClipGradNorm returns the Euclidean norm of all gradients together, and scales
// them to limit where the norm is greater, by PyTorch's factor
// min(1, limit / (norm + 1e-6)). A limit of 0 only measures. A norm that is
// not finite is a [*GradError], and the gradients stay as they are.
func ClipGradNorm(params []Param, limit float64) (norm float64, err error) {
	var all float64
	first := ""
	for _, p := range params {
		sum := sumSquares(p.Grad)
		if first == "" && (math.IsNaN(sum) || math.IsInf(sum, 0)) {
			first = p.Name
		}
		all += sum
	}
	norm = math.Sqrt(all)
	if first != "" {
		return norm, &GradError{Param: first, Norm: norm}
	}
	factor := limit / (norm + 1e-6)
	if limit <= 0 || factor >= 1 {
		return norm, nil
	}
	for _, p := range params {
		stretches(len(p.Grad), func(_, lo, hi int) {
			grad := p.Grad[lo:hi]
			for i, g := range grad {
				grad[i] = float32(factor * float64(g))
			}
		})
	}
	return norm, nil
}

// sumSquares adds up the squares of x, in an order that does not depend on the number of cores.
func sumSquares(x []float32) (all float64) {
	sums := make([]float64, (len(x)+stretch-1)/stretch)
	stretches(len(x), func(task, lo, hi int) {
		// Two chains of additions: one alone waits for each sum.
		var even, odd float64
		part := x[lo:hi]
		for len(part) >= 2 {
			a, b := float64(part[0]), float64(part[1])
			even, odd = even+a*a, odd+b*b
			part = part[2:]
		}
		for _, v := range part {
			even += float64(v) * float64(v)
		}
		sums[task] = even + odd
	})
	for _, s := range sums {
		all += s
	}
	return all
}
