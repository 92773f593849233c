package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// FormatError is a model file that is not the protobuf message it should be.
type FormatError struct {
	// Offset is the byte in the file.
	Offset int64
	// Detail says what was found and wanted.
	Detail string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("onnx: byte %d: %s", e.Offset, e.Detail)
}

// maxDepth bounds graphs in attributes of nodes in graphs: a file may nest them deeper
// than any exporter does only to exhaust the stack.
const maxDepth = 32

// A message is the content of one protobuf message and where it starts in the file.
type message struct {
	b     []byte
	at    int64
	depth int // of graphs around it
}

// A field is one entry of a message.
type field struct {
	num     protowire.Number
	typ     protowire.Type
	val     uint64 // of a varint, fixed32 or fixed64
	message        // of a length-delimited field
	raw     []byte // the whole entry, tag included
}

func (m message) errorf(format string, args ...any) error {
	return &FormatError{m.at, fmt.Sprintf(format, args...)}
}

// each calls fn for every field of m.
func (m message) each(what string, fn func(f field) error) error {
	for b, at := m.b, m.at; len(b) > 0; {
		f, err := next(b, at, what)
		if err != nil {
			return err
		}
		f.depth = m.depth
		if err := fn(f); err != nil {
			return err
		}
		b, at = b[len(f.raw):], at+int64(len(f.raw))
	}
	return nil
}

// next reads the first field of b.
func next(b []byte, at int64, what string) (field, error) {
	f := field{message: message{at: at}}
	var n, size int
	f.num, f.typ, n = protowire.ConsumeTag(b)
	if n < 0 {
		return f, f.errorf("%s: bad tag: %v", what, protowire.ParseError(n))
	}
	switch f.typ {
	case protowire.VarintType:
		f.val, size = protowire.ConsumeVarint(b[n:])
	case protowire.Fixed32Type:
		var v uint32
		v, size = protowire.ConsumeFixed32(b[n:])
		f.val = uint64(v)
	case protowire.Fixed64Type:
		f.val, size = protowire.ConsumeFixed64(b[n:])
	case protowire.BytesType:
		f.b, size = protowire.ConsumeBytes(b[n:])
		f.at = at + int64(n+size-len(f.b))
	default:
		size = protowire.ConsumeFieldValue(f.num, f.typ, b[n:])
	}
	if size < 0 {
		return f, f.errorf("%s field %d: %v", what, f.num, protowire.ParseError(size))
	}
	f.raw = b[:n+size]
	return f, nil
}

// want checks the wire type of a field that is read.
func (f field) want(typ protowire.Type, what string) error {
	if f.typ != typ {
		return f.errorf("%s has wire type %d, want %d", what, f.typ, typ)
	}
	return nil
}

func (f field) string(dst *string, what string) error {
	*dst = string(f.b)
	return f.want(protowire.BytesType, what)
}

func (f field) int(dst *int64, what string) error {
	*dst = int64(f.val)
	return f.want(protowire.VarintType, what)
}

// ints appends a repeated varint field, packed or not.
func (f field) ints(dst *[]int64, what string) error {
	if f.typ == protowire.VarintType {
		*dst = append(*dst, int64(f.val))
		return nil
	}
	for b := f.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return f.errorf("%s: %v", what, protowire.ParseError(n))
		}
		*dst = append(*dst, int64(v))
		b = b[n:]
	}
	return f.want(protowire.BytesType, what)
}

// floats appends a repeated float field, packed or not.
func (f field) floats(dst *[]float32, what string) error {
	if f.typ == protowire.Fixed32Type {
		*dst = append(*dst, math.Float32frombits(uint32(f.val)))
		return nil
	}
	if len(f.b)%4 != 0 {
		return f.errorf("%s takes %d bytes, want a multiple of 4", what, len(f.b))
	}
	for b := f.b; len(b) > 0; b = b[4:] {
		*dst = append(*dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return f.want(protowire.BytesType, what)
}

// Parse reads a model from the bytes of its file, which the model keeps and
// refers to. Tensors in external files have no bytes; use [Load] for those.
// An error is a [*FormatError].
func Parse(b []byte) (*Model, error) {
	m := &Model{}
	err := message{b: b}.each("model", func(f field) error {
		switch f.num {
		case modelIR:
			return f.int(&m.IRVersion, "ir_version")
		case modelOpset:
			return m.decodeOpset(f)
		case modelGraph:
			if m.Graph != nil {
				return f.errorf("a second graph, want one")
			}
			return decodeGraph(f, &m.Graph)
		}
		m.extra = append(m.extra, f.raw...)
		return nil
	})
	if err == nil && m.Graph == nil {
		err = &FormatError{int64(len(b)), "the file ends without a graph"}
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Model) decodeOpset(f field) error {
	var o Opset
	if err := f.want(protowire.BytesType, "opset_import"); err != nil {
		return err
	}
	err := f.each("opset_import", func(f field) error {
		switch f.num {
		case opsetDomain:
			return f.string(&o.Domain, "opset domain")
		case opsetVersion:
			return f.int(&o.Version, "opset version")
		}
		o.extra = append(o.extra, f.raw...)
		return nil
	})
	m.Opsets = append(m.Opsets, o)
	return err
}

func decodeGraph(f field, dst **Graph) error {
	if f.depth++; f.depth > maxDepth {
		return f.errorf("graphs are nested more than %d deep", maxDepth)
	}
	if err := f.want(protowire.BytesType, "graph"); err != nil {
		return err
	}
	g := &Graph{}
	*dst = g
	return f.each("graph", func(f field) error {
		switch f.num {
		case graphName:
			return f.string(&g.Name, "graph name")
		case graphNode:
			return decodeInto(f, &g.Nodes, decodeNode)
		case graphInit:
			return decodeInto(f, &g.Initializers, decodeTensor)
		case graphInput:
			return decodeInto(f, &g.Inputs, decodeValue)
		case graphOutput:
			return decodeInto(f, &g.Outputs, decodeValue)
		case graphValue:
			return decodeInto(f, &g.Values, decodeValue)
		}
		g.extra = append(g.extra, f.raw...)
		return nil
	})
}

// decodeInto appends what decode makes of a length-delimited field.
func decodeInto[T any](f field, dst *[]*T, decode func(field, *T) error) error {
	if err := f.want(protowire.BytesType, "field"); err != nil {
		return err
	}
	v := new(T)
	*dst = append(*dst, v)
	return decode(f, v)
}

func decodeNode(f field, n *Node) error {
	return f.each("node", func(f field) error {
		switch f.num {
		case nodeInput:
			n.Inputs = append(n.Inputs, string(f.b))
			return f.want(protowire.BytesType, "node input")
		case nodeOutput:
			n.Outputs = append(n.Outputs, string(f.b))
			return f.want(protowire.BytesType, "node output")
		case nodeName:
			return f.string(&n.Name, "node name")
		case nodeOp:
			return f.string(&n.Op, "op_type")
		case nodeDomain:
			return f.string(&n.Domain, "node domain")
		case nodeAttr:
			return decodeInto(f, &n.Attrs, decodeAttr)
		}
		n.extra = append(n.extra, f.raw...)
		return nil
	})
}

func decodeAttr(f field, a *Attr) error {
	return f.each("attribute", func(f field) error {
		switch f.num {
		case attrName:
			return f.string(&a.Name, "attribute name")
		case attrType:
			a.Type = AttrType(f.val)
			return f.want(protowire.VarintType, "attribute type")
		case attrF:
			a.F = math.Float32frombits(uint32(f.val))
			return f.want(protowire.Fixed32Type, "attribute float")
		case attrI:
			return f.int(&a.I, "attribute int")
		case attrS:
			a.S = f.b
			return f.want(protowire.BytesType, "attribute string")
		case attrT:
			a.T = &Tensor{}
			if err := f.want(protowire.BytesType, "attribute tensor"); err != nil {
				return err
			}
			return decodeTensor(f, a.T)
		case attrG:
			return decodeGraph(f, &a.G)
		}
		return a.decodeList(f)
	})
}

func (a *Attr) decodeList(f field) error {
	switch f.num {
	case attrFloats:
		return f.floats(&a.Floats, "attribute floats")
	case attrInts:
		return f.ints(&a.Ints, "attribute ints")
	case attrStrings:
		a.Strings = append(a.Strings, f.b)
		return f.want(protowire.BytesType, "attribute strings")
	case attrTensors:
		return decodeInto(f, &a.Tensors, decodeTensor)
	case attrGraphs:
		var g *Graph
		err := decodeGraph(f, &g)
		a.Graphs = append(a.Graphs, g)
		return err
	}
	a.extra = append(a.extra, f.raw...)
	return nil
}
