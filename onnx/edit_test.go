package onnx

import (
	"slices"
	"testing"
)

// TestEditHead puts an adapter in front of a head and a bias beside it; the model is
// in float16, so both work behind casts.
func TestEditHead(t *testing.T) {
	m := tail(func(g *Graph) {
		g.Initializers[0] = NewTensor("w", Float16, []int64{2, 3}, narrow([]float32{1, 2, 3, 4, 5, 6}, Float16))
		g.Add("Cast", []string{"h"}, []string{"h16"}, Int("to", int64(Float16)))
		g.Add("MatMul", []string{"h16", "w"}, []string{"z"})
		g.Add("Cast", []string{"z"}, []string{"logits"}, Int("to", int64(Float32)))
	})
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.EditHead(h, Edit{
		Before: func(g *Graph, name func(string) string, hidden string) string {
			out := name("adapter")
			g.Add("Neg", []string{hidden}, []string{out})
			return out
		},
		Beside: func(g *Graph, name func(string) string, _, product string) string {
			out := name("biased")
			g.Add("Add", []string{product, g.AddInitializer(Float32Tensor(name("bias"), []float32{1, 2, 3}, 3))}, []string{out})
			return out
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ops []string
	made := map[string]bool{"x": true, "input_ids": true}
	for _, x := range p.Graph.Initializers {
		made[x.Name] = true
	}
	for _, n := range p.Graph.Nodes {
		ops = append(ops, n.Op)
		for _, in := range n.Inputs {
			if !made[in] {
				t.Errorf("%s reads %q before it is made", n.Op, in)
			}
		}
		for _, out := range n.Outputs {
			if made[out] {
				t.Errorf("%q is made twice", out)
			}
			made[out] = true
		}
	}
	want := []string{"Relu", "Cast", "Cast", "Neg", "Cast", "MatMul", "Cast", "Add", "Cast", "Identity", "Cast"}
	if !slices.Equal(ops, want) {
		t.Errorf("operations are %v, want %v", ops, want)
	}
	if len(m.Graph.Nodes) != 4 || m.Graph.Nodes[2].Inputs[0] != "h16" || m.Graph.Nodes[2].Outputs[0] != "z" {
		t.Error("the model itself was changed")
	}
}

func TestEditRefused(t *testing.T) {
	m := tail(func(g *Graph) { chain(g, []string{"MatMul", "·", "w"}) })
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.EditHead(h, Edit{Weight: make([]float32, 5)}); err == nil {
		t.Error("a matrix of another size was taken")
	}
	if _, err := m.MergeLoRA(h, LoRAWeights{R: 1, A: make([]float32, 2), B: make([]float32, 2), Scale: 1}); err == nil {
		t.Error("B of another size was taken")
	}
	if _, err := m.Backbone(h, "present.0.key"); err == nil {
		t.Error("an output that is not there was kept")
	}
}
