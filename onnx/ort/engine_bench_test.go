//go:build cgo

package ort

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// BenchmarkEngine times the head beside op=product, the bare [N,D]·[D,V] product
// that every engine needs: the rest is what the engine costs.
func BenchmarkEngine(b *testing.B) {
	h := headCase{n: 256, d: 576, v: 49152, r: 16, scale: 1}
	rng := rand.New(rand.NewPCG(1, 2))
	v := h.vocabulary(rng)
	rows, add := h.rows(rng)
	size := fmt.Sprintf("N=%d/D=%d/V=%d/R=%d", h.n, h.d, h.v, h.r)
	coef := make([]float64, h.n)
	for i := range coef {
		coef[i] = rng.NormFloat64()
	}
	for _, weightIsInput := range []bool{false, true} {
		name := fmt.Sprintf("%s/input=%t/op=", size, weightIsInput)
		b.Run(name+"product", func(b *testing.B) { benchmarkProduct(b, v, rows, weightIsInput) })
		e, err := openRuntime(b).newEngine(v, DefaultOptions(), weightIsInput)
		if err != nil {
			b.Fatal(err)
		}
		var out models.Tokens
		b.Run(name+"load", func(b *testing.B) {
			for b.Loop() {
				if err := e.Load(b.Context(), rows); err != nil {
					b.Fatal(err)
				}
			}
			reportRows(b, h.n)
		})
		b.Run(name+"forward", func(b *testing.B) {
			for b.Loop() {
				if err := e.Forward(b.Context(), add, &out); err != nil {
					b.Fatal(err)
				}
			}
			reportRows(b, h.n)
		})
		grad := newGrad(h)
		grad.C = nil
		b.Run(name+"backward", func(b *testing.B) {
			for b.Loop() {
				if err := e.Backward(b.Context(), coef, grad); err != nil {
					b.Fatal(err)
				}
			}
			reportRows(b, h.n)
		})
		e.Close()
	}
}

func reportRows(b *testing.B, n int) {
	b.ReportAllocs()
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func benchmarkProduct(b *testing.B, v *models.Vocabulary, rows models.Rows, weightIsInput bool) {
	m := onnx.NewModel("product", onnx.Opset{Version: engineOpset})
	m.Graph.AddInput(inHidden, onnx.Float32, onnx.Free("N"), onnx.Fixed(v.D))
	inputs := []string{inHidden}
	if weightIsInput {
		m.Graph.AddInput(inWeight, onnx.Float32, onnx.Fixed(v.V), onnx.Fixed(v.D))
		inputs = append(inputs, inWeight)
	} else {
		m.Graph.AddInitializer(onnx.NewTensor(inWeight, onnx.Float32, []int64{int64(v.V), int64(v.D)}, bytesOf(v.Weight)))
	}
	add(m.Graph, "z", "Gemm", []string{inHidden, inWeight}, onnx.Int("transB", 1))
	m.Graph.AddOutput("z", onnx.Float32, onnx.Free("N"), onnx.Fixed(v.V))
	s, err := openRuntime(b).newSession(m, inputs, []string{"z"}, DefaultOptions())
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	z := make([]float32, rows.N*v.V)
	for b.Loop() {
		var vs values
		in := []ortgo.Value{vs.float32s(rows.Hidden, int64(rows.N), int64(v.D))}
		if weightIsInput {
			in = append(in, vs.float32s(v.Weight, int64(v.V), int64(v.D)))
		}
		err := s.run(b.Context(), in, []ortgo.Value{vs.float32s(z, int64(rows.N), int64(v.V))})
		vs.destroy()
		if err != nil {
			b.Fatal(err)
		}
	}
	reportRows(b, rows.N)
}
