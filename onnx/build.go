package onnx

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// irVersion 8 is the newest that every ONNX Runtime since 1.10 reads.
const irVersion = 8

// NewModel starts a model with an empty graph of that name.
func NewModel(name string, opsets ...Opset) *Model {
	m := &Model{IRVersion: irVersion, Opsets: opsets, Graph: &Graph{Name: name}}
	m.extra = protowire.AppendTag(m.extra, modelProducer, protowire.BytesType)
	m.extra = protowire.AppendString(m.extra, "dpo-pipe")
	return m
}

// Add appends a node of the standard domain to the graph and returns it.
func (g *Graph) Add(op string, inputs, outputs []string, attrs ...*Attr) *Node {
	n := NewNode(op, inputs, outputs, attrs...)
	g.Nodes = append(g.Nodes, n)
	return n
}

// AddInitializer appends a constant and returns its name.
func (g *Graph) AddInitializer(t *Tensor) string {
	g.Initializers = append(g.Initializers, t)
	return t.Name
}

// AddInput declares an input and returns its name.
func (g *Graph) AddInput(name string, dt DType, shape ...Dim) string {
	g.Inputs = append(g.Inputs, NewValueInfo(name, dt, shape...))
	return name
}

// AddOutput declares an output; some node must produce the value.
func (g *Graph) AddOutput(name string, dt DType, shape ...Dim) {
	g.Outputs = append(g.Outputs, NewValueInfo(name, dt, shape...))
}

// NewNode returns a node of the standard domain, named after its first output.
func NewNode(op string, inputs, outputs []string, attrs ...*Attr) *Node {
	n := &Node{Op: op, Inputs: inputs, Outputs: outputs, Attrs: attrs}
	if len(outputs) > 0 {
		n.Name = outputs[0] + "/" + op
	}
	return n
}

// In sets the domain of a node, for example "com.microsoft", and returns it.
func (n *Node) In(domain string) *Node {
	n.Domain = domain
	return n
}

// Int returns an integer attribute.
func Int(name string, v int64) *Attr { return &Attr{Name: name, Type: AttrInt, I: v} }

// Float returns a float attribute.
func Float(name string, v float32) *Attr { return &Attr{Name: name, Type: AttrFloat, F: v} }

// Str returns a string attribute.
func Str(name, v string) *Attr { return &Attr{Name: name, Type: AttrString, S: []byte(v)} }

// Ints returns an attribute that is a list of integers.
func Ints(name string, v ...int64) *Attr { return &Attr{Name: name, Type: AttrInts, Ints: v} }

// Floats returns an attribute that is a list of floats.
func Floats(name string, v ...float32) *Attr { return &Attr{Name: name, Type: AttrFloats, Floats: v} }

// TensorAttr returns an attribute that is a tensor.
func TensorAttr(name string, t *Tensor) *Attr { return &Attr{Name: name, Type: AttrTensor, T: t} }

// GraphAttr returns an attribute that is a graph, as If and Loop take.
func GraphAttr(name string, g *Graph) *Attr { return &Attr{Name: name, Type: AttrGraph, G: g} }

// Fixed is a dimension of known size.
func Fixed(n int) Dim { return Dim{Size: int64(n)} }

// Free is a named dimension of any size.
func Free(name string) Dim { return Dim{Size: -1, Name: name} }

// NewValueInfo declares a tensor value; no dimension at all is a scalar.
func NewValueInfo(name string, dt DType, shape ...Dim) *ValueInfo {
	dims := &encoder{}
	for _, d := range shape {
		dims.message(1, func(e *encoder) {
			if d.Size >= 0 {
				e.varint(1, uint64(d.Size))
			} else if d.Name != "" {
				e.string(2, d.Name)
			}
		})
	}
	typ := &encoder{}
	typ.message(1, func(e *encoder) {
		e.varint(1, uint64(dt))
		e.message(2, func(e *encoder) { e.append(dims) })
	})
	if shape == nil {
		shape = []Dim{}
	}
	return &ValueInfo{Name: name, DType: dt, Shape: shape, typ: typ.bytes()}
}

// NewTensor returns a constant over data, which is little-endian, row-major,
// and is kept, not copied.
func NewTensor(name string, dt DType, dims []int64, data []byte) *Tensor {
	if data == nil {
		data = []byte{}
	}
	return &Tensor{Name: name, DType: dt, Dims: dims, data: data}
}

// Float32Tensor returns a float32 constant. Without dims it is a scalar.
func Float32Tensor(name string, v []float32, dims ...int64) *Tensor {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return NewTensor(name, Float32, dims, b)
}

// Int64Tensor returns an int64 constant. Without dims it is a scalar.
func Int64Tensor(name string, v []int64, dims ...int64) *Tensor {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(x))
	}
	return NewTensor(name, Int64, dims, b)
}

// Int32Tensor returns an int32 constant. Without dims it is a scalar.
func Int32Tensor(name string, v []int32, dims ...int64) *Tensor {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(x))
	}
	return NewTensor(name, Int32, dims, b)
}
