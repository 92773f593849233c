package onnx

import "fmt"

// HiddenName is the output of a backbone.
const HiddenName = "hidden_states"

// Backbone returns the model with the states that feed the head as its first
// output, [HiddenName], float32 [B,T,D], in place of the logits. A state is given for
// every position, also where the model keeps only the last ones before its head. The
// inputs stay as declared; outputs other than those named in keep (the
// present.* of a model whose cache is wanted) are dropped, with all that only they need.
func (m *Model) Backbone(h *Head, keep ...string) (*Model, error) {
	b := m.clone()
	g := b.Graph
	var outputs []*ValueInfo
	for _, name := range keep {
		o := g.Output(name)
		if o == nil {
			return nil, fmt.Errorf("onnx: backbone: no output %q; outputs are %s", name, names(g.Outputs))
		}
		outputs = append(outputs, o)
	}
	hidden := b.freeName(h.Hidden, HiddenName)
	for _, n := range h.feed {
		if n.Op == "Cast" {
			hidden = b.cast(hidden, DType(n.Int("to", 0)))
		}
	}
	if h.Compute != Float32 {
		hidden = b.cast(hidden, Float32)
	}
	if hidden != HiddenName {
		g.Add("Identity", []string{hidden}, []string{HiddenName})
	}
	batch, positions := Free("batch_size"), Free("sequence_length")
	if ids := g.Input("input_ids"); ids != nil && len(ids.Shape) == 2 {
		batch, positions = ids.Shape[0], ids.Shape[1]
	}
	g.Outputs = nil
	g.AddOutput(HiddenName, Float32, batch, positions, Fixed(h.D))
	g.Outputs = append(g.Outputs, outputs...)
	g.prune()
	return b, nil
}

// freeName makes sure that name is either the wanted value or unused: exporters
// call values in between "hidden_states" too. It returns what wanted is called now.
func (m *Model) freeName(wanted, name string) string {
	g := m.Graph
	ix := newIndex(g)
	if wanted == name || !ix.has(g, name) {
		return wanted
	}
	other := ix.unique(g, name)
	for i, n := range g.Nodes {
		g.Nodes[i] = n.rename(name, other)
	}
	g.Values = keep(g.Values, func(v *ValueInfo) bool { return v.Name != name })
	for i, t := range g.Initializers {
		if t.Name == name {
			c := *t
			c.Name = other
			g.Initializers[i] = &c
		}
	}
	return wanted
}

// unique returns a name like name that no value of the graph has.
func (ix *index) unique(g *Graph, name string) string {
	for i := 0; ; i++ {
		try := fmt.Sprintf("dpo_pipe/%s", name)
		if i > 0 {
			try = fmt.Sprintf("%s_%d", try, i)
		}
		if !ix.has(g, try) {
			return try
		}
	}
}

// cast appends a Cast and returns its output.
func (m *Model) cast(value string, to DType) string {
	g := m.Graph
	out := newIndex(g).unique(g, value+"/"+to.String())
	g.Add("Cast", []string{value}, []string{out}, Int("to", int64(to)))
	return out
}
