package onnxtest

import (
	"math"
	"math/rand/v2"

	"github.com/x448/float16"
)

// A source draws weights that are exact in the type the model stores.
type source struct {
	*rand.Rand
	half bool
}

func (s *source) normal(n int, mean, sd float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(mean + sd*s.NormFloat64())
	}
	if s.half {
		roundHalf(v)
	}
	return v
}

// matrix draws [in,out] with the spread that keeps activations near 1.
func (s *source) matrix(in, out int) []float32 { return s.normal(in*out, 0, 1/math.Sqrt(float64(in))) }

func roundHalf(v []float32) {
	for i, x := range v {
		v[i] = float16.Fromfloat32(x).Float32()
	}
}

// nbitsBlock is the smallest block MatMulNBits takes.
const nbitsBlock = 16

// quantised is a head stored as integers: one byte for each level, with the scale
// and zero point of its group of size elements.
type quantised struct {
	levels      []int8 // 4-bit levels are 0…15
	scales      []float32
	zeros       []int8
	dequantised []float32
}

// quantiseBlocks cuts each row of w [v,d] into blocks of 4-bit levels.
func quantiseBlocks(w []float32, v, d int, half bool) *quantised {
	return quantise(w, v*d/nbitsBlock, nbitsBlock, 0, 15, half)
}

// quantiseRows gives each row of w [v,d] a scale and a zero point of int8 levels. A
// float16 graph rounds the result before it multiplies.
func quantiseRows(w []float32, v, d int, half bool) *quantised {
	q := quantise(w, v, d, -128, 127, half)
	if half {
		roundHalf(q.dequantised)
	}
	return q
}

func quantise(w []float32, groups, size, lo, hi int, half bool) *quantised {
	q := &quantised{levels: make([]int8, len(w)), dequantised: make([]float32, len(w))}
	for g := range groups {
		group := w[g*size : (g+1)*size]
		least, most := 0.0, 0.0
		for _, x := range group {
			least, most = math.Min(least, float64(x)), math.Max(most, float64(x))
		}
		scale := []float32{float32((most - least) / float64(hi-lo))}
		if half {
			roundHalf(scale)
		}
		s := float64(scale[0])
		zero := clamp(math.Round(float64(lo)-least/s), lo, hi)
		q.scales, q.zeros = append(q.scales, scale[0]), append(q.zeros, int8(zero))
		for i, x := range group {
			level := clamp(math.Round(float64(x)/s)+zero, lo, hi)
			q.levels[g*size+i] = int8(level)
			q.dequantised[g*size+i] = float32((level - zero) * s)
		}
	}
	return q
}

func clamp(x float64, lo, hi int) float64 { return math.Min(math.Max(x, float64(lo)), float64(hi)) }
