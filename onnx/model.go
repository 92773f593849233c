package onnx

import (
	"fmt"
	"math"
)

// Model is a model file: its graph and the operator sets it uses.
//
// Derived models ([Model.Backbone], [Model.MergeLoRA]) share nodes' attributes
// and initializers' bytes with the model they come from and never change it.
type Model struct {
	// IRVersion is the version of the file format.
	IRVersion int64
	// Opsets are the imported operator sets.
	Opsets []Opset
	// Graph is the main graph.
	Graph *Graph

	extra   []byte // every other field, encoded
	path    string // where Load found it; empty for a built or parsed model
	files   []*mapping
	derived bool // changed since it was loaded
}

// Opset is an imported operator set; the standard one has the domain "".
type Opset struct {
	Domain  string
	Version int64
	extra   []byte
}

// Graph is a list of nodes in topological order and the values they use.
type Graph struct {
	Name string
	// Nodes are in topological order.
	Nodes []*Node
	// Initializers are the constant tensors.
	Initializers []*Tensor
	// Inputs and Outputs are the declared values at the edges.
	Inputs, Outputs []*ValueInfo
	// Values are the declared types of values in between.
	Values []*ValueInfo

	extra []byte
}

// Node is one operation. An empty input or output name is an absent one.
type Node struct {
	Name, Op, Domain string
	Inputs, Outputs  []string
	Attrs            []*Attr

	extra []byte
}

// AttrType says which field of an [Attr] holds its value.
type AttrType int32

// The attribute types; on disk.
const (
	AttrFloat   AttrType = 1
	AttrInt     AttrType = 2
	AttrString  AttrType = 3
	AttrTensor  AttrType = 4
	AttrGraph   AttrType = 5
	AttrFloats  AttrType = 6
	AttrInts    AttrType = 7
	AttrStrings AttrType = 8
	AttrTensors AttrType = 9
	AttrGraphs  AttrType = 10
)

// Attr is a named constant of a node.
type Attr struct {
	Name    string
	Type    AttrType
	F       float32
	I       int64
	S       []byte
	T       *Tensor
	G       *Graph
	Floats  []float32
	Ints    []int64
	Strings [][]byte
	Tensors []*Tensor
	Graphs  []*Graph

	extra []byte
}

// Tensor is a constant. Its bytes are little-endian, row-major.
type Tensor struct {
	Name  string
	DType DType
	Dims  []int64
	// External says where the bytes lie outside the model file; nil when they
	// are in it.
	External *External

	data  []byte // raw or external bytes; nil where typed fields hold the values
	extra []byte // typed value fields among others
}

// External is the place of a tensor's bytes in a file beside the model.
type External struct {
	// Location is a path relative to the model's folder, with slashes.
	Location string
	// Offset and Length are bytes; Length is -1 where the file does not say.
	Offset, Length int64

	extra [][2]string // other keys, for example a checksum
}

// ValueInfo is the declared type of a value.
type ValueInfo struct {
	Name string
	// DType is the element type, 0 where the value is not a tensor.
	DType DType
	// Shape is nil where it is not declared.
	Shape []Dim

	typ   []byte // the encoded TypeProto, written back as it is
	extra []byte
}

// Dim is one dimension: a size, or a name for one that is free.
type Dim struct {
	// Size is -1 for a free dimension.
	Size int64
	// Name is the symbol of a free dimension; it may be empty.
	Name string
}

// Attr returns the attribute of that name, or nil.
func (n *Node) Attr(name string) *Attr {
	for _, a := range n.Attrs {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// Int returns the integer attribute of that name, or def.
func (n *Node) Int(name string, def int64) int64 {
	if a := n.Attr(name); a != nil {
		return a.I
	}
	return def
}

// Float returns the float attribute of that name, or def.
func (n *Node) Float(name string, def float32) float32 {
	if a := n.Attr(name); a != nil {
		return a.F
	}
	return def
}

// Input returns the name of input i, or "" when it is absent.
func (n *Node) Input(i int) string {
	if i < len(n.Inputs) {
		return n.Inputs[i]
	}
	return ""
}

// Input returns the declared graph input of that name, or nil.
func (g *Graph) Input(name string) *ValueInfo { return findValue(g.Inputs, name) }

// Output returns the declared graph output of that name, or nil.
func (g *Graph) Output(name string) *ValueInfo { return findValue(g.Outputs, name) }

func findValue(vs []*ValueInfo, name string) *ValueInfo {
	for _, v := range vs {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// Initializer returns the initializer of that name, or nil.
func (g *Graph) Initializer(name string) *Tensor {
	for _, t := range g.Initializers {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Opset returns the version of an imported domain, 0 when it is not imported.
// "ai.onnx" is another name of "".
func (m *Model) Opset(domain string) int64 {
	for _, o := range m.Opsets {
		if o.Domain == domain || o.Domain == "ai.onnx" && domain == "" {
			return o.Version
		}
	}
	return 0
}

// Path returns the file the model was loaded from, or "".
func (m *Model) Path() string { return m.path }

// Elements returns the number of elements, or an error when a dimension is
// negative or the product overflows.
func (t *Tensor) Elements() (int64, error) {
	n := int64(1)
	for _, d := range t.Dims {
		if d < 0 {
			return 0, fmt.Errorf("onnx: tensor %q has dimensions %v, want none below 0", t.Name, t.Dims)
		}
		if d > 0 && n > math.MaxInt64/256/d {
			return 0, fmt.Errorf("onnx: tensor %q has dimensions %v, more than can be addressed", t.Name, t.Dims)
		}
		n *= d
	}
	return n, nil
}

// size returns the bytes the elements take, packed.
func (t *Tensor) size() (int64, error) {
	n, err := t.Elements()
	if err != nil {
		return 0, err
	}
	if t.DType.Bits() == 0 {
		return 0, fmt.Errorf("onnx: tensor %q has type %s, which has no fixed size", t.Name, t.DType)
	}
	return (n*t.DType.Bits() + 7) / 8, nil
}
