package onnx

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of onnx.proto; on disk.
const (
	modelIR, modelProducer, modelGraph, modelOpset                                         = 1, 2, 7, 8
	opsetDomain, opsetVersion                                                              = 1, 2
	graphNode, graphName, graphInit, graphInput, graphOutput, graphValue                   = 1, 2, 5, 11, 12, 13
	nodeInput, nodeOutput, nodeName, nodeOp, nodeAttr, nodeDomain                          = 1, 2, 3, 4, 5, 7
	attrName, attrF, attrI, attrS, attrT, attrG                                            = 1, 2, 3, 4, 5, 6
	attrFloats, attrInts, attrStrings, attrTensors, attrGraphs, attrType                   = 7, 8, 9, 10, 11, 20
	tensorDims, tensorType, tensorName, tensorRaw, tensorExternal, tensorLocation          = 1, 2, 8, 9, 13, 14
	tensorFloats, tensorInt32s, tensorInt64s, tensorFloat64s, tensorUint64s, tensorStrings = 4, 5, 7, 10, 11, 6
	valueName, valueType                                                                   = 1, 2
	typeTensor, tensorTypeElem, tensorTypeShape, shapeDim, dimValue, dimParam              = 1, 1, 2, 1, 1, 2
	entryKey, entryValue                                                                   = 1, 2
	locationExternal                                                                       = 1
)

// An encoder collects a message as parts, so that the bytes of initializers
// are referred to and not copied before they reach the file.
type encoder struct {
	parts [][]byte
	tail  []byte // the part being filled
	size  int64
}

// maxFile is the largest protobuf message, and so model file, that can be read.
const maxFile = math.MaxInt32

// referBytes is the size from which a byte field becomes a part of its own.
const referBytes = 4096

func (e *encoder) tag(num protowire.Number, typ protowire.Type) {
	e.raw(protowire.AppendTag(nil, num, typ))
}

// raw appends encoded bytes.
func (e *encoder) raw(b []byte) {
	e.size += int64(len(b))
	if len(b) < referBytes {
		e.tail = append(e.tail, b...)
		return
	}
	e.flush()
	e.parts = append(e.parts, b)
}

func (e *encoder) flush() {
	if len(e.tail) > 0 {
		e.parts = append(e.parts, e.tail)
		e.tail = nil
	}
}

func (e *encoder) append(o *encoder) {
	for _, p := range o.parts {
		e.raw(p)
	}
	e.raw(o.tail)
}

func (e *encoder) varint(num protowire.Number, v uint64) {
	e.tag(num, protowire.VarintType)
	e.raw(protowire.AppendVarint(nil, v))
}

func (e *encoder) length(num protowire.Number, n int64) {
	e.tag(num, protowire.BytesType)
	e.raw(protowire.AppendVarint(nil, uint64(n)))
}

func (e *encoder) data(num protowire.Number, b []byte) {
	e.length(num, int64(len(b)))
	e.raw(b)
}

func (e *encoder) string(num protowire.Number, s string) { e.data(num, []byte(s)) }

// text writes a string field unless it is empty.
func (e *encoder) text(num protowire.Number, s string) {
	if s != "" {
		e.string(num, s)
	}
}

func (e *encoder) message(num protowire.Number, fill func(*encoder)) {
	sub := &encoder{}
	fill(sub)
	e.length(num, sub.size)
	e.append(sub)
}

// writeTo writes the parts in order.
func (e *encoder) writeTo(w io.Writer) error {
	e.flush()
	for _, p := range e.parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) bytes() []byte {
	b := make([]byte, 0, e.size)
	for _, p := range e.parts {
		b = append(b, p...)
	}
	return append(b, e.tail...)
}

// Marshal returns the model file. External tensors stay external: whoever
// loads the bytes must look for their files in the model's folder. A file over
// 2 GiB can't be loaded by ONNX Runtime; [Model.WriteFile] splits it.
func (m *Model) Marshal() ([]byte, error) {
	e := m.encode()
	if e.size > maxFile {
		return nil, fmt.Errorf("onnx: model takes %d bytes in one file, want at most %d", e.size, int64(maxFile))
	}
	return e.bytes(), nil
}

func (m *Model) encode() *encoder {
	e := &encoder{}
	e.varint(modelIR, uint64(m.IRVersion))
	for _, o := range m.Opsets {
		e.message(modelOpset, func(e *encoder) {
			e.text(opsetDomain, o.Domain)
			e.varint(opsetVersion, uint64(o.Version))
			e.raw(o.extra)
		})
	}
	if m.Graph != nil {
		e.message(modelGraph, m.Graph.encode)
	}
	e.raw(m.extra)
	return e
}

func (g *Graph) encode(e *encoder) {
	e.text(graphName, g.Name)
	for _, n := range g.Nodes {
		e.message(graphNode, n.encode)
	}
	for _, t := range g.Initializers {
		e.message(graphInit, t.encode)
	}
	for _, v := range g.Inputs {
		e.message(graphInput, v.encode)
	}
	for _, v := range g.Outputs {
		e.message(graphOutput, v.encode)
	}
	for _, v := range g.Values {
		e.message(graphValue, v.encode)
	}
	e.raw(g.extra)
}

func (n *Node) encode(e *encoder) {
	for _, s := range n.Inputs {
		e.string(nodeInput, s)
	}
	for _, s := range n.Outputs {
		e.string(nodeOutput, s)
	}
	e.text(nodeName, n.Name)
	e.text(nodeOp, n.Op)
	e.text(nodeDomain, n.Domain)
	for _, a := range n.Attrs {
		e.message(nodeAttr, a.encode)
	}
	e.raw(n.extra)
}

func (a *Attr) encode(e *encoder) {
	e.text(attrName, a.Name)
	if a.Type != 0 {
		e.varint(attrType, uint64(a.Type))
	}
	if a.Type == AttrFloat || a.F != 0 {
		e.tag(attrF, protowire.Fixed32Type)
		e.raw(protowire.AppendFixed32(nil, math.Float32bits(a.F)))
	}
	if a.Type == AttrInt || a.I != 0 {
		e.varint(attrI, uint64(a.I))
	}
	if a.Type == AttrString || len(a.S) > 0 {
		e.data(attrS, a.S)
	}
	if a.T != nil {
		e.message(attrT, a.T.encode)
	}
	if a.G != nil {
		e.message(attrG, a.G.encode)
	}
	a.encodeLists(e)
	e.raw(a.extra)
}

func (a *Attr) encodeLists(e *encoder) {
	for _, f := range a.Floats {
		e.tag(attrFloats, protowire.Fixed32Type)
		e.raw(protowire.AppendFixed32(nil, math.Float32bits(f)))
	}
	for _, i := range a.Ints {
		e.varint(attrInts, uint64(i))
	}
	for _, s := range a.Strings {
		e.data(attrStrings, s)
	}
	for _, t := range a.Tensors {
		e.message(attrTensors, t.encode)
	}
	for _, g := range a.Graphs {
		e.message(attrGraphs, g.encode)
	}
}

func (t *Tensor) encode(e *encoder) {
	for _, d := range t.Dims {
		e.varint(tensorDims, uint64(d))
	}
	e.varint(tensorType, uint64(t.DType))
	e.text(tensorName, t.Name)
	switch {
	case t.External != nil:
		t.External.encode(e)
	case t.data != nil:
		e.data(tensorRaw, t.data)
	}
	e.raw(t.extra)
}

func (x *External) encode(e *encoder) {
	entry := func(key, value string) {
		e.message(tensorExternal, func(e *encoder) {
			e.string(entryKey, key)
			e.string(entryValue, value)
		})
	}
	entry("location", x.Location)
	if x.Offset != 0 || x.Length >= 0 {
		entry("offset", strconv.FormatInt(x.Offset, 10))
	}
	if x.Length >= 0 {
		entry("length", strconv.FormatInt(x.Length, 10))
	}
	for _, kv := range x.extra {
		entry(kv[0], kv[1])
	}
	e.varint(tensorLocation, locationExternal)
}

func (v *ValueInfo) encode(e *encoder) {
	e.text(valueName, v.Name)
	if v.typ != nil {
		e.data(valueType, v.typ)
	}
	e.raw(v.extra)
}
