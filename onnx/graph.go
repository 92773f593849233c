package onnx

import "slices"

// An index answers who computes and who uses a value of the main graph.
type index struct {
	producer map[string]*Node
	inits    map[string]*Tensor
	uses     map[string]int // by nodes, nested graphs and outputs
}

func newIndex(g *Graph) *index {
	ix := &index{map[string]*Node{}, map[string]*Tensor{}, map[string]int{}}
	for _, n := range g.Nodes {
		for _, o := range n.Outputs {
			ix.producer[o] = n
		}
		n.reads(func(name string) { ix.uses[name]++ })
	}
	for _, t := range g.Initializers {
		ix.inits[t.Name] = t
	}
	for _, o := range g.Outputs {
		ix.uses[o.Name]++
	}
	return ix
}

// reads calls fn for each value the node reads, those its nested graphs take
// from outside included (and the ones they compute themselves, which does no harm).
func (n *Node) reads(fn func(name string)) {
	for _, name := range n.Inputs {
		if name != "" {
			fn(name)
		}
	}
	for _, a := range n.Attrs {
		for _, g := range a.graphs() {
			for _, o := range g.Outputs {
				fn(o.Name)
			}
			for _, n := range g.Nodes {
				n.reads(fn)
			}
		}
	}
}

// has reports whether name is a value of the graph.
func (ix *index) has(g *Graph, name string) bool {
	return ix.producer[name] != nil || ix.inits[name] != nil || ix.uses[name] > 0 || g.Input(name) != nil
}

// constant returns a tensor that is an initializer or the value of a Constant
// node, behind any Identity; nil for a computed value.
func (ix *index) constant(name string) *Tensor {
	for range len(ix.producer) + 1 {
		if t := ix.inits[name]; t != nil {
			return t
		}
		n := ix.producer[name]
		switch {
		case n == nil:
			return nil
		case n.Op == "Constant":
			return n.constant()
		case n.Op != "Identity" || len(n.Inputs) == 0:
			return nil
		}
		name = n.Inputs[0]
	}
	return nil
}

// uncast returns what a Cast converts, or name where no Cast made it.
func (ix *index) uncast(name string) string {
	if n := ix.producer[name]; n != nil && n.Op == "Cast" {
		return n.Input(0)
	}
	return name
}

// constant returns the tensor of a Constant node in any of its spellings.
func (n *Node) constant() *Tensor {
	if a := n.Attr("value"); a != nil {
		return a.T
	}
	if a := n.Attr("value_float"); a != nil {
		return Float32Tensor("", []float32{a.F})
	}
	if a := n.Attr("value_floats"); a != nil {
		return Float32Tensor("", a.Floats, int64(len(a.Floats)))
	}
	if a := n.Attr("value_int"); a != nil {
		return Int64Tensor("", []int64{a.I})
	}
	if a := n.Attr("value_ints"); a != nil {
		return Int64Tensor("", a.Ints, int64(len(a.Ints)))
	}
	return nil
}

// findOp returns a node of one of the operations, in nested graphs and model
// functions too, or nil.
func (m *Model) findOp(ops []string) *Node {
	if n := m.Graph.findOp(ops); n != nil {
		return n
	}
	const modelFunction, functionNode = 25, 7
	var found *Node
	// What Parse kept is well formed at this level; a function it can't read
	// is ONNX Runtime's to refuse.
	_ = message{b: m.extra}.each("model", func(f field) error {
		if f.num != modelFunction {
			return nil
		}
		return f.each("function", func(f field) error {
			var n Node
			if f.num == functionNode && decodeNode(f, &n) == nil && slices.Contains(ops, n.Op) {
				found = &n
			}
			return nil
		})
	})
	return found
}

func (g *Graph) findOp(ops []string) *Node {
	for _, n := range g.Nodes {
		if slices.Contains(ops, n.Op) {
			return n
		}
		for _, a := range n.Attrs {
			for _, g := range a.graphs() {
				if n := g.findOp(ops); n != nil {
					return n
				}
			}
		}
	}
	return nil
}

// prune drops what the outputs don't need: nodes, then initializers and declared
// types. Declared inputs stay, so that a model is fed as before.
func (g *Graph) prune() {
	live := map[string]bool{}
	for _, o := range g.Outputs {
		live[o.Name] = true
	}
	var nodes []*Node
	for _, n := range slices.Backward(g.Nodes) {
		if !slices.ContainsFunc(n.Outputs, func(o string) bool { return o != "" && live[o] }) {
			continue
		}
		nodes = append(nodes, n)
		n.reads(func(name string) { live[name] = true })
	}
	slices.Reverse(nodes)
	g.Nodes = nodes
	g.Initializers = keep(g.Initializers, func(t *Tensor) bool { return live[t.Name] })
	made := map[string]bool{}
	for _, n := range nodes {
		for _, o := range n.Outputs {
			made[o] = true
		}
	}
	g.Values = keep(g.Values, func(v *ValueInfo) bool { return made[v.Name] })
}

// keep returns the elements that satisfy ok, in a new slice.
func keep[T any](s []T, ok func(T) bool) []T {
	var kept []T
	for _, x := range s {
		if ok(x) {
			kept = append(kept, x)
		}
	}
	return kept
}

// clone copies the model and its main graph so that lists can be changed;
// nodes, tensors and values are shared until they are replaced.
func (m *Model) clone() *Model {
	c := *m
	g := *m.Graph
	g.Nodes, g.Initializers = slices.Clone(g.Nodes), slices.Clone(g.Initializers)
	g.Inputs, g.Outputs, g.Values = slices.Clone(g.Inputs), slices.Clone(g.Outputs), slices.Clone(g.Values)
	c.Graph, c.Opsets, c.derived = &g, slices.Clone(m.Opsets), true
	return &c
}

// rename returns the node with a value called by another name, in its nested graphs
// too; the node itself where it does not mention the value.
func (n *Node) rename(old, name string) *Node {
	mentioned := slices.Contains(n.Outputs, old)
	n.reads(func(s string) { mentioned = mentioned || s == old })
	if !mentioned {
		return n
	}
	c := *n
	c.Inputs, c.Outputs = replaced(n.Inputs, old, name), replaced(n.Outputs, old, name)
	c.Attrs = make([]*Attr, len(n.Attrs))
	for i, a := range n.Attrs {
		b := *a
		if a.G != nil {
			b.G = a.G.rename(old, name)
		}
		b.Graphs = nil
		for _, g := range a.Graphs {
			b.Graphs = append(b.Graphs, g.rename(old, name))
		}
		c.Attrs[i] = &b
	}
	return &c
}

func (g *Graph) rename(old, name string) *Graph {
	c := *g
	c.Nodes = make([]*Node, len(g.Nodes))
	for i, n := range g.Nodes {
		c.Nodes[i] = n.rename(old, name)
	}
	return &c
}

func replaced(s []string, old, name string) []string {
	s = slices.Clone(s)
	for i := range s {
		if s[i] == old {
			s[i] = name
		}
	}
	return s
}
