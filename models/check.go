package models

import (
	"fmt"
	"math"
	"slices"
)

// TargetError is a token id outside the vocabulary.
type TargetError struct {
	// Row is the position in the micro-batch, Target what stands there.
	Row    int
	Target int32
	// V is the size of the vocabulary.
	V int
}

// Error says which row holds which id.
func (e *TargetError) Error() string {
	return fmt.Sprintf("models: row %d: token id %d is outside the vocabulary [0, %d)", e.Row, e.Target, e.V)
}

// Validate reports what makes v unusable; NaN and infinite weights are not looked for.
func (v *Vocabulary) Validate() error {
	switch {
	case v.V < 1 || v.D < 1:
		return fmt.Errorf("models: vocabulary is [%d,%d], want both 1 or more", v.V, v.D)
	case len(v.Weight) != v.V*v.D:
		return fmt.Errorf("models: vocabulary weight holds %d values, want [%d,%d] = %d", len(v.Weight), v.V, v.D, v.V*v.D)
	case v.Bias != nil && len(v.Bias) != v.V:
		return fmt.Errorf("models: vocabulary bias holds %d values, want %d", len(v.Bias), v.V)
	case v.Scale == 0 || !finite(v.Scale):
		return fmt.Errorf("models: logit scale is %v, want a finite number other than 0", v.Scale)
	case !(v.Softcap >= 0) || !finite(v.Softcap):
		return fmt.Errorf("models: logit softcap is %v, want 0 (none) or a finite number above", v.Softcap)
	}
	return nil
}

// CheckRows is what every engine loads rows with: it returns a [*TargetError] for
// a target outside the vocabulary, and panics where a slice does not have the length that its
// shape says, which only a faulty caller brings about.
func CheckRows(v *Vocabulary, rows Rows) error {
	mustLen("rows.Hidden", len(rows.Hidden), rows.N*v.D)
	mustLen("rows.Targets", len(rows.Targets), rows.N)
	if rows.RefLogps != nil {
		mustLen("rows.RefLogps", len(rows.RefLogps), rows.N)
	}
	for i, t := range rows.Targets {
		if t < 0 || int(t) >= v.V {
			return &TargetError{Row: i, Target: t, V: v.V}
		}
	}
	return nil
}

// CheckAddition panics where a slice of add does not fit n rows.
func CheckAddition(v *Vocabulary, n int, add Addition) {
	if (add.U == nil) != (add.B == nil) {
		panic("models: addition has one of U and B, want both or neither")
	}
	if add.B != nil {
		mustLen("addition.U", len(add.U), n*add.R)
		mustLen("addition.B", len(add.B), v.V*add.R)
	}
	if add.C != nil {
		mustLen("addition.C", len(add.C), v.V)
	}
}

// CheckProject panics where x is not [R,D] or y not [V,R].
func CheckProject(v *Vocabulary, x []float32, r int, y []float32) {
	mustLen("vectors of the hidden space", len(x), r*v.D)
	mustLen("vectors of the vocabulary", len(y), v.V*r)
}

// CheckBackward panics where coef or grad do not fit the forward pass of n rows under add.
func CheckBackward(v *Vocabulary, n int, add Addition, coef []float64, grad AdditionGrad) {
	mustLen("coef", len(coef), n)
	if (grad.U != nil || grad.B != nil) && add.B == nil {
		panic("models: gradient of a low-rank part wanted, but the addition has none")
	}
	if grad.U != nil {
		mustLen("grad.U", len(grad.U), n*add.R)
	}
	if grad.B != nil {
		mustLen("grad.B", len(grad.B), v.V*add.R)
	}
	if grad.C != nil {
		mustLen("grad.C", len(grad.C), v.V)
	}
}

// Resize gives every slice n values, keeping capacity; KL gets none unless kl is set.
func (t *Tokens) Resize(n int, kl bool) {
	t.Logps = resize(t.Logps, n)
	t.Entropy = resize(t.Entropy, n)
	t.LogSumSq = resize(t.LogSumSq, n)
	t.Top = resize(t.Top, n)
	if !kl {
		n = 0
	}
	t.KL = resize(t.KL, n)
}

// resize returns s with n values of unspecified content.
func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

func mustLen(name string, have, want int) {
	if have != want {
		panic(fmt.Sprintf("models: %s has %d values, want %d", name, have, want))
	}
}

func finite(x float32) bool {
	f := float64(x)
	return !math.IsNaN(f) && !math.IsInf(f, 0)
}
