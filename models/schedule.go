package models

import (
	"fmt"
	"math"
)

// Schedule gives the learning rate of every step: a linear warm-up from 0, then
// the kind's course. Definitions are those of Hugging Face's get_scheduler for
// "linear", "cosine" (half a period) and "constant_with_warmup".
type Schedule struct {
	// Kind is "linear", "cosine" or "constant".
	Kind string
	// LR is the rate at the end of the warm-up.
	LR float64
	// Warmup counts warm-up steps, Steps all steps including them.
	Warmup, Steps int
}

// NewSchedule checks a schedule of so many steps. A warm-up below 1 is a share
// of the steps, rounded up; from 1 on it is a whole number of steps.
func NewSchedule(kind string, lr, warmup float64, steps int) (Schedule, error) {
	switch {
	case kind != "linear" && kind != "cosine" && kind != "constant":
		return Schedule{}, fmt.Errorf("models: schedule is %q, want linear, cosine or constant", kind)
	case !(lr >= 0) || math.IsInf(lr, 0):
		return Schedule{}, fmt.Errorf("models: learning rate is %v, want a finite number of 0 or more", lr)
	case steps < 0:
		return Schedule{}, fmt.Errorf("models: schedule of %d steps, want 0 or more", steps)
	case !(warmup >= 0) || warmup >= 1 && warmup != math.Trunc(warmup) || warmup > math.MaxInt32:
		return Schedule{}, fmt.Errorf("models: warm-up is %v, want a share below 1 or a whole number of steps", warmup)
	}
	s := Schedule{Kind: kind, LR: lr, Warmup: int(warmup), Steps: steps}
	if warmup < 1 {
		s.Warmup = int(math.Ceil(float64(steps) * warmup))
	}
	return s, nil
}

// At returns the learning rate of a step, the first being step 0.
func (s Schedule) At(step int) float64 {
	if step < s.Warmup {
		return s.LR * float64(step) / float64(max(1, s.Warmup))
	}
	left := float64(max(1, s.Steps-s.Warmup))
	switch s.Kind {
	case "linear":
		return s.LR * max(0, float64(s.Steps-step)/left)
	case "cosine":
		return s.LR * max(0, 0.5*(1+math.Cos(math.Pi*float64(step-s.Warmup)/left)))
	default:
		return s.LR
	}
}
