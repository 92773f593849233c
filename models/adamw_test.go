package models

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// adamTol is a few units in the last place of float32 weights and moments near 1,
// against values computed in float64.
const adamTol = 5e-7

func param(name string, values ...float32) Param {
	return Param{Name: name, Shape: []int{len(values)}, Value: values, Grad: make([]float32, len(values))}
}

func TestAdamWStepsAsTorch(t *testing.T) {
	p, q := param("p", 1, -2, 0.5, 0), param("q", 3)
	o := NewAdamW([]Param{p, q})
	o.WeightDecay = 0.1
	const tiny = 1.0 / (1 << 20)
	// Weights after each step from torch.optim.AdamW of PyTorch 1.13 in float64. The first is
	// also worked by hand: m̂ = g and v̂ = g², so every weight with a gradient moves by
	// lr·|g|/(|g|+eps) ≈ 0.1 against its sign after shrinking by 1 - 0.1·0.1.
	for i, step := range []struct {
		lr           float64
		gradP, wantP []float64
		gradQ, wantQ float64
	}{
		{
			0.1,
			[]float64{0.5, -1, 0, tiny},
			[]float64{0.890000002, -1.880000001, 0.495, -0.09896230502050817},
			2, 2.8700000004999997,
		},
		{
			0.05,
			[]float64{0.25, 1, 0, -tiny},
			[]float64{0.8389410212287312, -1.8732315799160526, 0.492525, -0.09586322231065543},
			-4, 2.8739551767914144,
		},
		{
			0.02,
			[]float64{0, 8, 0, 1024},
			[]float64{0.822851588382009, -1.8822081472741783, 0.49153995, -0.10844776785271754},
			1, 2.8709410796885146,
		},
	} {
		for k, g := range step.gradP {
			p.Grad[k] = float32(g)
		}
		q.Grad[0] = float32(step.gradQ)
		o.Step(step.lr)
		if o.Steps() != int64(i+1) {
			t.Errorf("%d steps taken, want %d", o.Steps(), i+1)
		}
		for k, want := range append(step.wantP, step.wantQ) {
			if got := float64(append(slices.Clone(p.Value), q.Value...)[k]); math.Abs(got-want) > adamTol {
				t.Errorf("step %d: weight %d is %v, want %v", i+1, k, got, want)
			}
		}
	}
}

func TestAdamWLeavesWeightsAloneWithoutGradientAndDecay(t *testing.T) {
	p := param("p", 1, -2)
	o := NewAdamW([]Param{p})
	o.WeightDecay = 0
	o.Step(0.1)
	if p.Value[0] != 1 || p.Value[1] != -2 {
		t.Errorf("weights are %v", p.Value)
	}
}

func TestClipGradNorm(t *testing.T) {
	for _, test := range []struct {
		name        string
		a, b, limit float64
		norm        float64
		wantA       float64
	}{
		// The factor is limit/(norm+1e-6), so a norm of 5 is cut to 5·1/5.000001.
		{"clipped", 3, 4, 1, 5, 3 / 5.000001},
		{"below", 3, 4, 6, 5, 3},
		{"at the limit: 1e-6 still counts", 3, 4, 5, 5, 3 * 5 / 5.000001},
		{"only measured", 3, 4, 0, 5, 3},
		{"zero", 0, 0, 1, 0, 0},
		{"greater than float32 squares", 3e30, 4e30, 1, 5e30, 0.6},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, q := param("p", 0), param("q", 0)
			p.Grad[0], q.Grad[0] = float32(test.a), float32(test.b)
			norm, err := ClipGradNorm([]Param{p, q}, test.limit)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(norm-test.norm) > adamTol*test.norm {
				t.Errorf("norm is %v, want %v", norm, test.norm)
			}
			if got := float64(p.Grad[0]); math.Abs(got-test.wantA) > adamTol*test.wantA {
				t.Errorf("gradient is %v, want %v", got, test.wantA)
			}
		})
	}
}

func TestClipGradNormReportsWhatIsNotFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		p, q := param("p", 0, 0), param("q", 0)
		p.Grad[0], q.Grad[0] = 7, float32(bad)
		norm, err := ClipGradNorm([]Param{p, q}, 1)
		var grad *GradError
		if !errors.As(err, &grad) || grad.Param != "q" || norm == norm && !math.IsInf(norm, 1) {
			t.Errorf("gradient %v: norm %v, error %v", bad, norm, err)
		}
		if p.Grad[0] != 7 {
			t.Errorf("gradient %v: the others were scaled to %v", bad, p.Grad[0])
		}
	}
}
