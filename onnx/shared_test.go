package onnx

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shared loads one of the real models, which a fresh clone does not have.
func shared(t *testing.T, name string) *Model {
	t.Helper()
	path := filepath.Join("..", "..", "shared", "models", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no real models: %v", err)
	}
	m, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestSharedModels(t *testing.T) {
	type want struct {
		name, form string
		v, d       int
		stored     DType
		tied       bool
		layers     int
		cache      DType
		logits     DType
	}
	const f32, f16 = Float32, Float16
	for _, w := range []want{
		{"stories260K/model.onnx", "Transpose+MatMul", 512, 64, f32, true, 5, f32, f32},
		{"stories260K/variants/external.onnx", "Transpose+MatMul", 512, 64, f32, true, 5, f32, f32},
		{"stories260K/variants/fp16.onnx", "Transpose+MatMul", 512, 64, f16, true, 5, f16, f32},
		{"stories260K/variants/lmhead_gemm.onnx", "Gemm", 512, 64, f32, true, 5, f32, f32},
		{"stories260K/variants/lmhead_matmul.onnx", "MatMul", 512, 64, f32, false, 5, f32, f32},
		{"stories260K/variants/lmhead_nbits.onnx", "MatMulNBits", 512, 64, Uint4, false, 5, f32, f32},
		{"stories260K/variants/nocache.onnx", "Transpose+MatMul", 512, 64, f32, true, 0, 0, f32},
		{"stories260K/variants/torch_export.onnx", "MatMul", 512, 64, f32, false, 5, f32, f32},
		{"stories260K-hub/onnx/model.onnx", "Transpose+MatMul", 512, 64, f32, true, 5, f32, f32},
		{"stories260K-hub/onnx/model_fp16.onnx", "Transpose+MatMul", 512, 64, f16, true, 5, f16, f32},
		{"tinystories-ple/model.onnx", "Transpose+MatMul", 4096, 128, f32, true, 6, f32, f32},
		{"third-party/genai-tiny-random-llama-fp16/model.onnx", "MatMul", 32000, 16, f16, false, 2, f16, f16},
	} {
		t.Run(w.name, func(t *testing.T) {
			m := shared(t, w.name)
			io, err := m.IO()
			if err != nil {
				t.Fatal(err)
			}
			h, err := m.FindHead()
			if err != nil {
				t.Fatal(err)
			}
			got := want{name: w.name, form: h.Form, v: h.V, d: h.D, stored: h.DType, tied: h.Tied, layers: len(io.Cache) / 2, logits: io.Logits.DType}
			if len(io.Cache) > 0 {
				got.cache = io.Cache[0].DType
			}
			if got != w {
				t.Errorf("got  %+v\nwant %+v", got, w)
			}
			if len(io.Presents()) != len(io.Cache) || h.Scale != 1 || h.Softcap != 0 {
				t.Errorf("presents %v, scale %g, softcap %g", io.Presents(), h.Scale, h.Softcap)
			}
			checkBackbone(t, m, h, io)
		})
	}
}

// checkBackbone: the backbone has one output, all inputs, and fewer nodes, and it
// survives a round trip.
func checkBackbone(t *testing.T, m *Model, h *Head, io *IO) {
	t.Helper()
	before := len(m.Graph.Nodes)
	b, err := m.Backbone(h)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Graph.Outputs) != 1 || b.Graph.Outputs[0].Name != HiddenName || len(b.Graph.Inputs) != len(m.Graph.Inputs) {
		t.Errorf("backbone has outputs %s and inputs %s", names(b.Graph.Outputs), names(b.Graph.Inputs))
	}
	if len(m.Graph.Nodes) != before || m.Graph.Output("logits") == nil {
		t.Error("the model itself was changed")
	}
	if len(b.Graph.Nodes) > before+1 || newIndex(b.Graph).producer["logits"] != nil {
		t.Errorf("backbone has %d nodes of %d and may still compute logits", len(b.Graph.Nodes), before)
	}
	if _, err := Parse(marshal(t, b)); err != nil {
		t.Error(err)
	}
	kept, err := m.Backbone(h, io.Presents()...)
	if err != nil || len(kept.Graph.Outputs) != 1+len(io.Cache) {
		t.Errorf("backbone with cache: %v", err)
	}
}

func TestSharedRefused(t *testing.T) {
	for name, want := range map[string]string{
		"third-party/genai-tiny-random-gpt2-fp32/past.onnx": `input "past_0" [2,batch_size,4,past_seq_len,8] holds keys and values together (a combined cache)`,
		"stories260K-hub/onnx/model_quantized.onnx":         `dynamically quantised: node "/lm_head/DynamicQuantizeLinear" is DynamicQuantizeLinear`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := shared(t, name).IO()
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.HasPrefix(refused.Reason, want) {
				t.Errorf("got %v, want a refusal %q", err, want)
			}
		})
	}
}

// TestSharedDense: every variant holds the same matrix, to the precision it is stored in.
func TestSharedDense(t *testing.T) {
	dense := func(t *testing.T, name string) []float32 {
		m := shared(t, name)
		h, err := m.FindHead()
		if err != nil {
			t.Fatal(err)
		}
		w, bias, err := h.Dense()
		if err != nil || bias != nil || len(w) != h.V*h.D {
			t.Fatalf("%d values, bias %v, %v", len(w), bias, err)
		}
		return w
	}
	ref := dense(t, "stories260K/model.onnx")
	const (
		fp16Error = 1.0 / 2048      // half a unit of an 11-bit mantissa, relative
		fp16Least = 1.0 / (1 << 25) // half the smallest subnormal
		nbitsStep = 1.0 / 15        // of a block's range, of which half a step is lost, and as much in the zero point
	)
	for name, tol := range map[string]float64{
		"external": 0, "lmhead_gemm": 0, "lmhead_matmul": 0, "nocache": 0, "torch_export": 0,
		"fp16": fp16Error, "lmhead_nbits": nbitsStep,
	} {
		t.Run(name, func(t *testing.T) {
			got := dense(t, "stories260K/variants/"+name+".onnx")
			for i := range got {
				size := math.Abs(float64(ref[i]))
				if name == "lmhead_nbits" {
					size = blockRange(ref[i/32*32 : i/32*32+32])
				}
				if diff := math.Abs(float64(got[i] - ref[i])); diff > max(tol*size, math.Ceil(tol)*fp16Least) {
					t.Fatalf("value %d is %g, want %g within %g", i, got[i], ref[i], tol*size)
				}
			}
		})
	}
}

func blockRange(v []float32) float64 {
	lo, hi := 0.0, 0.0
	for _, x := range v {
		lo, hi = min(lo, float64(x)), max(hi, float64(x))
	}
	return hi - lo
}
