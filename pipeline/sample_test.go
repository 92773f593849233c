package pipeline

import (
	"math"
	"slices"
	"testing"
)

// fourTokens have probabilities 1/2, 1/4, 1/8, 1/8 at temperature 1, and
// 4/7·…: squared, 16:4:1:1, at temperature 1/2.
var fourTokens = []float32{float32(math.Log(4)), float32(math.Log(2)), 0, 0}

func TestSamplingLeavesTheRightTokens(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Sampling
		want []float64 // probability of each token
	}{
		{"all", Sampling{Temperature: 1, TopP: 1}, []float64{0.5, 0.25, 0.125, 0.125}},
		{"colder", Sampling{Temperature: 0.5, TopP: 1}, []float64{16.0 / 22, 4.0 / 22, 1.0 / 22, 1.0 / 22}},
		{"two of four", Sampling{Temperature: 1, TopK: 2, TopP: 1}, []float64{2.0 / 3, 1.0 / 3, 0, 0}},
		{"more than there are", Sampling{Temperature: 1, TopK: 9, TopP: 1}, []float64{0.5, 0.25, 0.125, 0.125}},
		{"half", Sampling{Temperature: 1, TopP: 0.5}, []float64{1, 0, 0, 0}},
		{"a little over half", Sampling{Temperature: 1, TopP: 0.51}, []float64{2.0 / 3, 1.0 / 3, 0, 0}},
		{"equals by id", Sampling{Temperature: 1, TopP: 0.8}, []float64{4.0 / 7, 2.0 / 7, 1.0 / 7, 0}},
		{"both: 0.6 of two thirds", Sampling{Temperature: 1, TopK: 2, TopP: 0.6}, []float64{1, 0, 0, 0}},
		{"greedy", Sampling{TopP: 1}, []float64{1, 0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const draws = 20000
			s := newSampler(tt.s, 0)
			counts := make([]float64, len(fourTokens))
			for range draws {
				counts[s.choose(fourTokens)]++
			}
			for id, p := range tt.want {
				// Five standard deviations of a binomial share.
				if got, slack := counts[id]/draws, 5*math.Sqrt(p*(1-p)/draws); math.Abs(got-p) > slack {
					t.Errorf("token %d has share %.4f, want %.4f ± %.4f", id, got, p, slack)
				}
			}
		})
	}
}

func TestSamplingIsSeeded(t *testing.T) {
	draw := func(seed uint64, completion int) (ids []int32) {
		s := newSampler(Sampling{Temperature: 1, TopP: 1, Seed: seed}, completion)
		for range 64 {
			ids = append(ids, s.choose(fourTokens))
		}
		return ids
	}
	if !slices.Equal(draw(1, 0), draw(1, 0)) {
		t.Error("equal seeds draw other tokens")
	}
	if slices.Equal(draw(1, 0), draw(2, 0)) || slices.Equal(draw(1, 0), draw(1, 1)) {
		t.Error("another seed or completion draws the same 64 tokens")
	}
}
