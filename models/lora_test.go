package models_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
)

func TestNewLoRAIsAsPEFTInitialises(t *testing.T) {
	const d, r = 400, 50
	h := models.NewLoRA(d, 30, r, 16, 7)
	if slices.ContainsFunc(h.B, func(x float32) bool { return x != 0 }) {
		t.Error("B is not zero")
	}
	// Kaiming-uniform with a = √5: the bound is √(6/((1+5)·D)) = 1/√D = 1/20.
	const bound = 1.0 / 20
	var sum, squares, most float64
	for _, x := range h.A {
		sum += float64(x)
		squares += float64(x) * float64(x)
		most = max(most, math.Abs(float64(x)))
	}
	n := float64(len(h.A))
	if most > bound || most < 0.999*bound {
		t.Errorf("greatest |A| is %v, want just below %v", most, bound)
	}
	// 20,000 draws: the mean strays by bound/√3/√n = 2e-4, of which five are allowed; the
	// variance of a uniform variable is bound²/3.
	if mean := sum / n; math.Abs(mean) > 1e-3 {
		t.Errorf("mean of A is %v, want 0", mean)
	}
	if v := squares / n; math.Abs(v-bound*bound/3) > 0.03*bound*bound/3 {
		t.Errorf("variance of A is %v, want %v", v, bound*bound/3)
	}
	if !slices.Equal(h.A, models.NewLoRA(d, 30, r, 16, 7).A) {
		t.Error("same seed, other A")
	}
	if slices.Equal(h.A, models.NewLoRA(d, 30, r, 16, 8).A) {
		t.Error("other seed, same A")
	}
}

func TestLoRAScale(t *testing.T) {
	h := models.NewLoRA(4, 4, 16, 32, 1)
	if got := h.Scale(); got != 2 {
		t.Errorf("α 32, rank 16: scale is %v, want 2", got)
	}
	h.RSLoRA = true
	if got := h.Scale(); got != 8 {
		t.Errorf("rank-stabilised: scale is %v, want 32/√16 = 8", got)
	}
}

func TestLoRAParams(t *testing.T) {
	h := models.NewLoRA(3, 5, 2, 4, 1)
	p := h.Params()
	if p[0].Name != "base_model.model.lm_head.lora_A.weight" || !slices.Equal(p[0].Shape, []int{2, 3}) ||
		p[1].Name != "base_model.model.lm_head.lora_B.weight" || !slices.Equal(p[1].Shape, []int{5, 2}) {
		t.Errorf("parameters are %v %v and %v %v", p[0].Name, p[0].Shape, p[1].Name, p[1].Shape)
	}
	p[0].Value[0], p[1].Grad[0] = 42, 43
	if h.A[0] != 42 || h.Params()[1].Grad[0] != 43 {
		t.Error("parameters are copies")
	}
	h.ZeroGrad()
	if p[1].Grad[0] != 0 {
		t.Error("ZeroGrad left a gradient")
	}
}

func TestLoRARefusesAnotherHeadsEngine(t *testing.T) {
	v := &models.Vocabulary{V: 4, D: 2, Scale: 1, Weight: make([]float32, 8)}
	h := models.NewLoRA(3, 4, 1, 1, 1)
	err := h.Forward(t.Context(), models.NewGonum(v), &models.Tokens{})
	if err == nil || !strings.Contains(err.Error(), "[4,3]") || !strings.Contains(err.Error(), "[4,2]") {
		t.Errorf("error is %v, want one with both shapes", err)
	}
}

func TestLoRALogpsAreWhatACacheKeeps(t *testing.T) {
	w := newWork(9, 50, 6, 2)
	h := models.NewLoRA(6, 50, 2, 4, 1)
	var out, ref models.Tokens
	if err := models.Forward(t.Context(), w.engine, w.rows, models.Addition{}, &ref); err != nil {
		t.Fatal(err)
	}
	if err := models.Score(t.Context(), w.engine, h, w.rows, &out); err != nil {
		t.Fatal(err)
	}
	for i, lp := range out.Logps {
		if lp != float64(float32(ref.Logps[i])) {
			t.Errorf("row %d: log-prob is %v, the reference's in float32 %v", i, lp, float32(ref.Logps[i]))
		}
	}
}
