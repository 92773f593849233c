package models

import (
	"math"
	"testing"
)

// scheduleTol allows for the rounding of a few float64 operations.
const scheduleTol = 1e-15

func TestSchedule(t *testing.T) {
	half := math.Sqrt2 / 2
	tests := []struct {
		name, kind    string
		warmup        float64
		steps, warmed int
		want          map[int]float64
	}{
		{"linear", "linear", 0, 4, 0, map[int]float64{0: 1, 1: 0.75, 2: 0.5, 3: 0.25, 4: 0, 5: 0}},
		{"linear, 2 steps", "linear", 2, 10, 2, map[int]float64{0: 0, 1: 0.5, 2: 1, 6: 0.5, 9: 0.125, 10: 0}},
		{"linear, share", "linear", 0.2, 10, 2, map[int]float64{0: 0, 1: 0.5, 2: 1, 6: 0.5}},
		{"share is rounded up", "constant", 0.21, 10, 3, map[int]float64{0: 0, 1: 1. / 3, 2: 2. / 3, 3: 1, 99: 1}},
		{"constant", "constant", 0, 3, 0, map[int]float64{0: 1, 2: 1, 3: 1}},
		// ½(1+cos πp): p = ¼ gives ½(1+√½), ⅓ gives ¾, ½ gives ½, ⅔ gives ¼.
		{"cosine", "cosine", 0, 4, 0, map[int]float64{0: 1, 1: 0.5 * (1 + half), 2: 0.5, 3: 0.5 * (1 - half), 4: 0}},
		{"cosine, 4 steps", "cosine", 4, 10, 4, map[int]float64{0: 0, 3: 0.75, 4: 1, 6: 0.75, 7: 0.5, 8: 0.25, 10: 0}},
		{"warm-up alone", "cosine", 5, 5, 5, map[int]float64{0: 0, 4: 0.8, 5: 1}},
		{"longer warm-up than run", "linear", 9, 3, 9, map[int]float64{0: 0, 2: 2. / 9}},
		{"one step", "linear", 0, 1, 0, map[int]float64{0: 1, 1: 0}},
		{"one step, share", "linear", 0.1, 1, 1, map[int]float64{0: 0}},
		{"no steps", "cosine", 0.1, 0, 0, map[int]float64{0: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := NewSchedule(test.kind, 0.5, test.warmup, test.steps)
			if err != nil {
				t.Fatal(err)
			}
			if s.Warmup != test.warmed {
				t.Errorf("%d warm-up steps, want %d", s.Warmup, test.warmed)
			}
			for step, want := range test.want {
				if got := s.At(step); !(math.Abs(got-0.5*want) <= scheduleTol) {
					t.Errorf("step %d: rate is %v, want %v of 0.5", step, got, want)
				}
			}
		})
	}
}

func TestNewScheduleRefuses(t *testing.T) {
	nan := math.NaN()
	for name, call := range map[string]func() (Schedule, error){
		"unknown kind":   func() (Schedule, error) { return NewSchedule("step", 1, 0, 1) },
		"negative rate":  func() (Schedule, error) { return NewSchedule("linear", -1, 0, 1) },
		"NaN rate":       func() (Schedule, error) { return NewSchedule("linear", nan, 0, 1) },
		"infinite rate":  func() (Schedule, error) { return NewSchedule("linear", math.Inf(1), 0, 1) },
		"negative steps": func() (Schedule, error) { return NewSchedule("linear", 1, 0, -1) },
		"NaN warm-up":    func() (Schedule, error) { return NewSchedule("linear", 1, nan, 1) },
		"1.5 steps":      func() (Schedule, error) { return NewSchedule("linear", 1, 1.5, 1) },
		"-1 steps":       func() (Schedule, error) { return NewSchedule("linear", 1, -1, 1) },
	} {
		if s, err := call(); err == nil || s != (Schedule{}) {
			t.Errorf("%s: %+v, error %v", name, s, err)
		}
	}
}
