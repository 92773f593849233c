package onnx

import "fmt"

// LoRAWeights is a low-rank addition to the vocabulary matrix: ΔW = Scale · B A.
type LoRAWeights struct {
	// R is the rank.
	R int
	// A is [R,D], B is [V,R], row-major.
	A, B []float32
	// Scale is α/r.
	Scale float64
}

// MergeLoRA returns the model with Scale · B A added to its head: to the stored matrix,
// whose layout and type stay, or, where that is quantised or has such a branch already,
// as a branch of two products beside it. Bias, scale and softcap of the head apply to both, so that
//
//	z = Scale · (W h + bias + (α/r) B A h)
//
// before the softcap. The sum over the rank is taken in float64.
func (m *Model) MergeLoRA(h *Head, delta LoRAWeights) (*Model, error) {
	if h.Quantized || len(h.branches) > 0 {
		return m.BranchLoRA(h, delta)
	}
	if err := delta.check(h); err != nil {
		return nil, err
	}
	w, _, err := h.Dense()
	if err != nil {
		return nil, err
	}
	delta.addTo(w, h.V, h.D)
	return m.EditHead(h, Edit{Weight: w})
}

// BranchLoRA returns the model with the two products of delta beside its head, in
// float32, whatever the head's form: exact where merging rounds to a narrow stored type.
func (m *Model) BranchLoRA(h *Head, delta LoRAWeights) (*Model, error) {
	if err := delta.check(h); err != nil {
		return nil, err
	}
	return m.EditHead(h, Edit{Beside: delta.branch(h)})
}

func (l LoRAWeights) check(h *Head) error {
	if r := l.R; r < 1 || len(l.A) != r*h.D || len(l.B) != h.V*r {
		return fmt.Errorf("onnx: LoRA of rank %d has A of %d and B of %d values, want %d and %d",
			r, len(l.A), len(l.B), r*h.D, h.V*r)
	}
	return nil
}

// addTo adds Scale · B A to w [V,D].
func (l LoRAWeights) addTo(w []float32, v, d int) {
	sum := make([]float64, d)
	for i := range v {
		clear(sum)
		for r := range l.R {
			b := float64(l.B[i*l.R+r])
			for j, a := range l.A[r*d : (r+1)*d] {
				sum[j] += b * float64(a)
			}
		}
		row := w[i*d : (i+1)*d]
		for j := range row {
			row[j] = float32(float64(row[j]) + l.Scale*sum[j])
		}
	}
}

// branch adds (h Aᵀ)(Scale·Bᵀ) to the product; the head's own factor is part
// of W and so does not apply to it.
func (l LoRAWeights) branch(h *Head) func(*Graph, func(string) string, string, string) string {
	return func(g *Graph, name func(string) string, hidden, product string) string {
		bt := transpose(l.B, h.V, l.R)
		for i := range bt {
			bt[i] = float32(l.Scale * float64(bt[i]))
		}
		a := g.AddInitializer(Float32Tensor(name("lm_head.lora_A"), transpose(l.A, l.R, h.D), int64(h.D), int64(l.R)))
		b := g.AddInitializer(Float32Tensor(name("lm_head.lora_B"), bt, int64(l.R), int64(h.V)))
		low, high, sum := name("lm_head/lora_A"), name("lm_head/lora_B"), name("lm_head/lora")
		g.Add("MatMul", []string{hidden, a}, []string{low})
		g.Add("MatMul", []string{low, b}, []string{high})
		g.Add("Add", []string{product, high}, []string{sum})
		return sum
	}
}
