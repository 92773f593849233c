package onnx

import (
	"fmt"
	"slices"
)

// Edit is a change to the LM head of a model. Its functions add nodes and
// initializers to g and return the value that takes the place of the one they were given;
// values are float32 whatever type the head works in, hidden [B,T,D] (or its rows),
// product [B,T,V]. name makes value names that are free in the model.
type Edit struct {
	// Weight replaces the matrix, [V,D], in the layout and type it is stored
	// in; nil leaves it. A quantised matrix can't be replaced, nor one with a branch.
	Weight []float32
	// Before changes the hidden state that feeds the product, an adapter for
	// instance; nil leaves it.
	Before func(g *Graph, name func(string) string, hidden string) string
	// Beside changes W h, inside bias, scale and softcap, given the hidden
	// state that fed it; nil leaves it.
	Beside func(g *Graph, name func(string) string, hidden, product string) string
}

// EditHead returns the model with its head changed. The input side is as it was: a tied
// embedding keeps its bytes, the head gets a matrix of its own.
func (m *Model) EditHead(h *Head, e Edit) (*Model, error) {
	ed := &editor{Model: m.clone(), h: h, ix: newIndex(m.Graph)}
	if e.Weight != nil {
		if err := ed.setWeight(e.Weight); err != nil {
			return nil, err
		}
	}
	product := *h.product
	product.Inputs, product.Outputs = slices.Clone(h.product.Inputs), slices.Clone(h.product.Outputs)
	if ed.matrix != "" {
		product.Inputs[1] = ed.matrix
	}
	if e.Before != nil {
		product.Inputs[0] = ed.feed(e)
	}
	if e.Beside != nil {
		ed.beside(&product, e)
	}
	ed.splice(&product)
	ed.Graph.prune()
	return ed.Model, nil
}

// An editor collects what goes in front of and behind the product.
type editor struct {
	*Model
	h             *Head
	ix            *index
	matrix        string // the new matrix, as the product takes it
	before, after Graph
}

// name returns a free value name and takes it.
func (ed *editor) name(s string) string {
	s = ed.ix.unique(ed.Graph, s)
	ed.ix.uses[s]++
	return s
}

// insert runs an edit on value, with casts around it where the head does not
// work in float32.
func (ed *editor) insert(g *Graph, value string, edit func(string) string) string {
	if ed.h.Compute == Float32 {
		return edit(value)
	}
	wide := ed.name(value + "/float32")
	g.Add("Cast", []string{value}, []string{wide}, Int("to", int64(Float32)))
	changed := edit(wide)
	if changed == wide {
		return value
	}
	out := ed.name(changed + "/" + ed.h.Compute.String())
	g.Add("Cast", []string{changed}, []string{out}, Int("to", int64(ed.h.Compute)))
	return out
}

// feed changes the hidden state, [B,T,D] in the type of the product, and returns the value
// that feeds the product then. Casts on its way come first, flattening after: the model can then
// be split behind the change.
func (ed *editor) feed(e Edit) string {
	value := ed.h.Hidden
	pass := func(casts bool) {
		for _, n := range ed.h.feed {
			if (n.Op == "Cast") != casts {
				continue
			}
			c := *n
			c.Inputs, c.Outputs = slices.Clone(n.Inputs), []string{ed.name("lm_head/" + n.Op)}
			c.Inputs[0], c.Name = value, c.Outputs[0]
			ed.before.Nodes = append(ed.before.Nodes, &c)
			value = c.Outputs[0]
		}
	}
	pass(true)
	value = ed.insert(&ed.before, value, func(hidden string) string { return e.Before(&ed.before, ed.name, hidden) })
	pass(false)
	return value
}

// beside gives the product another output, which Beside turns into the old one.
func (ed *editor) beside(product *Node, e Edit) {
	out := product.Outputs[0]
	plain := ed.name(out)
	product.Outputs[0] = plain
	hidden := product.Inputs[0]
	if ed.h.Compute != Float32 {
		hidden = ed.name(hidden + "/wide")
		ed.after.Add("Cast", []string{product.Inputs[0]}, []string{hidden}, Int("to", int64(Float32)))
	}
	changed := ed.insert(&ed.after, plain, func(value string) string {
		return e.Beside(&ed.after, ed.name, hidden, value)
	})
	ed.after.Add("Identity", []string{changed}, []string{out})
}

// splice puts the new nodes around the product, which itself is replaced.
func (ed *editor) splice(product *Node) {
	at := slices.Index(ed.Graph.Nodes, ed.h.product)
	nodes := slices.Concat(ed.Graph.Nodes[:at], ed.before.Nodes, []*Node{product}, ed.after.Nodes, ed.Graph.Nodes[at+1:])
	ed.Graph.Nodes = nodes
	ed.Graph.Initializers = append(ed.Graph.Initializers, ed.before.Initializers...)
	ed.Graph.Initializers = append(ed.Graph.Initializers, ed.after.Initializers...)
}

// setWeight stores w [V,D]: in place of the old matrix where only the head
// uses that, else as a matrix of its own with copies of the nodes on its way.
func (ed *editor) setWeight(w []float32) error {
	h := ed.h
	if len(w) != h.V*h.D {
		return fmt.Errorf("onnx: new head has %d values, want %d x %d", len(w), h.V, h.D)
	}
	if h.Quantized || len(h.branches) > 0 {
		return fmt.Errorf("onnx: a head of form %s can't be replaced, only added to", h.Form)
	}
	t := h.stored(w)
	if at := slices.IndexFunc(ed.Graph.Initializers, func(t *Tensor) bool { return t.Name == h.weight.name }); at >= 0 && !h.Tied {
		t.Name = h.weight.name
		ed.Graph.Initializers[at] = t
		return nil
	}
	t.Name = ed.name("lm_head.weight")
	ed.matrix = ed.before.AddInitializer(t)
	for _, n := range h.weight.path {
		c := *n
		out := ed.name("lm_head/" + n.Op)
		c.Inputs, c.Outputs = slices.Clone(n.Inputs), []string{out}
		c.Inputs[0], c.Name = ed.matrix, out
		ed.before.Nodes = append(ed.before.Nodes, &c)
		ed.matrix = out
	}
	return nil
}

// stored returns w [V,D] in the layout and type of the model's matrix.
func (h *Head) stored(w []float32) *Tensor {
	if h.alpha != 1 {
		w = slices.Clone(w)
		for i := range w {
			w[i] = float32(float64(w[i]) / h.alpha)
		}
	}
	if !h.weight.rowsAreV {
		w = transpose(w, h.V, h.D)
	}
	return NewTensor("", h.weight.base.DType, slices.Clone(h.weight.base.Dims), narrow(w, h.weight.base.DType))
}
