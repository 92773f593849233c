//go:build cgo

package ort

import (
	"context"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// Values of the graphs of Project and Gather.
const (
	inLeft  = "left"
	inRight = "right"
	outProd = "product"
)

// Project writes W xᵀ to dst, [V,R]; see models.Engine.
func (e *engine) Project(ctx context.Context, x []float32, r int, dst []float32) error {
	v := e.vocab
	models.CheckProject(v, x, r, dst)
	return e.product(ctx, &e.project, onnx.Int("transB", 1),
		matrix{v.Weight, v.V, v.D}, matrix{x, r, v.D}, matrix{dst, v.V, r})
}

// Gather writes gᵀ W to dst, [R,D]; see models.Engine.
func (e *engine) Gather(ctx context.Context, g []float32, r int, dst []float32) error {
	v := e.vocab
	models.CheckProject(v, dst, r, g)
	return e.product(ctx, &e.gather, onnx.Int("transA", 1),
		matrix{g, v.V, r}, matrix{v.Weight, v.V, v.D}, matrix{dst, r, v.D})
}

// A matrix is row-major, [rows,cols].
type matrix struct {
	data       []float32
	rows, cols int
}

func (m matrix) value(vs *values) ortgo.Value {
	return vs.float32s(m.data, int64(m.rows), int64(m.cols))
}

// product runs the graph dst = left·right, one of them transposed, which is made at its first use:
// most heads never need it. The vocabulary's matrix is an input, so that no copy of it is held.
func (e *engine) product(ctx context.Context, s **session, transpose *onnx.Attr, left, right, dst matrix) error {
	if *s == nil {
		opened, err := e.runtime.newSession(productGraph(transpose), []string{inLeft, inRight}, []string{outProd}, e.opt)
		if err != nil {
			return err
		}
		*s = opened
	}
	var vs values
	defer vs.destroy()
	inputs := []ortgo.Value{left.value(&vs), right.value(&vs)}
	outputs := []ortgo.Value{dst.value(&vs)}
	if vs.err != nil {
		return vs.err
	}
	return (*s).run(ctx, inputs, outputs)
}

func productGraph(transpose *onnx.Attr) *onnx.Model {
	m := onnx.NewModel("product", onnx.Opset{Version: engineOpset})
	g := m.Graph
	g.AddInput(inLeft, onnx.Float32, onnx.Free("A"), onnx.Free("B"))
	g.AddInput(inRight, onnx.Float32, onnx.Free("C"), onnx.Free("D"))
	add(g, outProd, "Gemm", []string{inLeft, inRight}, transpose)
	g.AddOutput(outProd, onnx.Float32, onnx.Free("E"), onnx.Free("F"))
	return m
}
