package onnx_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// variants are the options that cross every head form.
var variants = map[string]func(*onnxtest.Options){
	"plain": func(*onnxtest.Options) {},
	"fp16":  func(o *onnxtest.Options) { o.Float16 = true },
	"int32": func(o *onnxtest.Options) { o.Int32, o.NoCache, o.NoPositions = true, true, true },
	"rich":  func(o *onnxtest.Options) { o.Bias, o.Scale, o.Softcap, o.KeepLogits = true, 0.5, 30, true },
	"external": func(o *onnxtest.Options) {
		o.External, o.Float16, o.Bias, o.KVHeads = true, true, true, o.Heads
	},
}

func eachForm(t *testing.T, test func(t *testing.T, d *onnxtest.Decoder, m *onnx.Model)) {
	for _, form := range onnxtest.Forms {
		for name, set := range variants {
			t.Run(fmt.Sprintf("%s/%s", form, name), func(t *testing.T) {
				opt := onnxtest.Default()
				opt.Form = form
				set(&opt)
				d := onnxtest.New(opt)
				test(t, d, load(t, d))
			})
		}
	}
}

func load(t *testing.T, d *onnxtest.Decoder) *onnx.Model {
	t.Helper()
	dir := t.TempDir()
	if err := d.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Load(dir + "/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func head(t *testing.T, m *onnx.Model) (*onnx.Head, []float32, []float32) {
	t.Helper()
	h, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	w, b, err := h.Dense()
	if err != nil {
		t.Fatal(err)
	}
	return h, w, b
}

// TestForms: what the generator put in is what IO, FindHead and Dense find.
func TestForms(t *testing.T) {
	forms := map[onnxtest.Form]string{
		onnxtest.MatMul: "MatMul", onnxtest.Gemm: "Gemm", onnxtest.Tied: "Transpose+MatMul", onnxtest.NBits: "MatMulNBits",
		onnxtest.Dequantize: "DequantizeLinear+MatMul", onnxtest.CastTied: "Cast+Transpose+MatMul",
	}
	eachForm(t, func(t *testing.T, d *onnxtest.Decoder, m *onnx.Model) {
		io, err := m.IO()
		if err != nil {
			t.Fatal(err)
		}
		checkIO(t, d, io)
		h, w, b := head(t, m)
		form := forms[d.Form]
		if d.Float16 && d.Form == onnxtest.Dequantize {
			form = "DequantizeLinear+Cast+MatMul"
		}
		quantized := d.Form == onnxtest.NBits || d.Form == onnxtest.Dequantize
		tied := d.Form == onnxtest.Tied || d.Form == onnxtest.Gemm || d.Form == onnxtest.CastTied
		if h.Form != form || h.V != d.V || h.D != d.D || h.Tied != tied || h.Quantized != quantized {
			t.Errorf("head is %+v", h)
		}
		if h.Scale != d.Scale || h.Softcap != d.Softcap {
			t.Errorf("scale %g, softcap %g, want %g, %g", h.Scale, h.Softcap, d.Scale, d.Softcap)
		}
		wantW, wantB := d.Head()
		equal(t, "weight", w, wantW, 0)
		equal(t, "bias", b, wantB, 0)
	})
}

func checkIO(t *testing.T, d *onnxtest.Decoder, io *onnx.IO) {
	t.Helper()
	ids, float := onnx.Int64, onnx.Float32
	if d.Int32 {
		ids = onnx.Int32
	}
	if d.Float16 {
		float = onnx.Float16
	}
	if io.InputIDs.DType != ids || io.AttentionMask.DType != ids || io.Logits.DType != float || io.V != d.V {
		t.Errorf("io is %+v", io)
	}
	if (io.PositionIDs.Name == "") != d.NoPositions || (io.KeepLogits.Name != "") != d.KeepLogits {
		t.Errorf("positions %+v, keep %+v", io.PositionIDs, io.KeepLogits)
	}
	layers := d.Layers
	if d.NoCache {
		layers = 0
	}
	if len(io.Cache) != 2*layers || len(io.Presents()) != 2*layers {
		t.Fatalf("cache is %+v", io.Cache)
	}
	for i, c := range io.Cache {
		want := onnx.CachePort{
			Name: fmt.Sprintf("past_key_values.%d.%s", i/2, []string{"key", "value"}[i%2]), Layer: i / 2,
			Present: fmt.Sprintf("present.%d.%s", i/2, []string{"key", "value"}[i%2]),
			DType:   float, Heads: d.KVHeads, HeadDim: d.D / d.Heads,
		}
		if c != want {
			t.Errorf("cache %d is %+v, want %+v", i, c, want)
		}
	}
}

func equal(t *testing.T, what string, got, want []float32, relative float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if diff := math.Abs(float64(got[i] - want[i])); diff > relative*math.Abs(float64(want[i])) {
			t.Fatalf("%s: value %d is %g, want %g", what, i, got[i], want[i])
		}
	}
}

func TestRefusedForms(t *testing.T) {
	for form, want := range map[onnxtest.Form]string{
		onnxtest.Combined:       `input "past_0" [2,batch_size,2,past_sequence_length,8] holds keys and values together`,
		onnxtest.Dynamic:        `dynamically quantised: node "/h_q/DynamicQuantizeLinear" is DynamicQuantizeLinear`,
		onnxtest.EncoderDecoder: `input "encoder_hidden_states" belongs to an encoder-decoder`,
		onnxtest.NoLogits:       `no output "logits"; outputs are "present.0.key", `,
	} {
		t.Run(string(form), func(t *testing.T) {
			opt := onnxtest.Default()
			opt.Form = form
			_, err := onnxtest.New(opt).ONNX().IO()
			var refused *onnx.RefusedError
			if !errors.As(err, &refused) || !strings.HasPrefix(refused.Reason, want) {
				t.Errorf("got %v, want a refusal %q", err, want)
			}
		})
	}
}

// TestMergeLoRA: the head of a merged model is W + scale·B A to the precision it is
// stored in; where it is quantised it is as it was, with the branch beside it. What the
// embedding reads never changes.
func TestMergeLoRA(t *testing.T) {
	const r, scale = 3, 0.5
	eachForm(t, func(t *testing.T, d *onnxtest.Decoder, m *onnx.Model) {
		h, w, _ := head(t, m)
		rng := rand.New(rand.NewPCG(7, 7))
		delta := onnx.LoRAWeights{R: r, A: normal(rng, r*d.D), B: normal(rng, d.V*r), Scale: scale}
		p, err := m.MergeLoRA(h, delta)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := embedding(t, p), embedding(t, m); got != want {
			t.Error("the input embedding was changed")
		}
		if h.Quantized {
			checkBranch(t, p, d, delta)
			return
		}
		merged, got, _ := head(t, p)
		if merged.Form != h.Form || merged.DType != h.DType || merged.Tied || merged.Hidden != h.Hidden {
			t.Errorf("merged head is %+v, was %+v", merged, h)
		}
		for i := range w {
			for k := range r {
				w[i] += scale * delta.B[i/d.D*r+k] * delta.A[k*d.D+i%d.D]
			}
		}
		// A rounding of sums near 0 is large beside them: compare by the size of the terms.
		for i := range w {
			tolerance := 1e-6
			if h.DType == onnx.Float16 {
				tolerance = 1.0 / 1024
			}
			if math.Abs(float64(got[i]-w[i])) > tolerance*(1+math.Abs(float64(w[i]))) {
				t.Fatalf("value %d is %g, want %g", i, got[i], w[i])
			}
		}
	})
}

// checkBranch: the two new matrices are Aᵀ and scale·Bᵀ, and their sum with the product
// takes the product's name.
func checkBranch(t *testing.T, p *onnx.Model, d *onnxtest.Decoder, delta onnx.LoRAWeights) {
	t.Helper()
	a, b := p.Graph.Initializer("dpo_pipe/lm_head.lora_A"), p.Graph.Initializer("dpo_pipe/lm_head.lora_B")
	if a == nil || b == nil {
		t.Fatal("no branch")
	}
	if a.Dims[0] != int64(d.D) || a.Dims[1] != int64(delta.R) || b.Dims[0] != int64(delta.R) || b.Dims[1] != int64(d.V) {
		t.Errorf("A is %v, B is %v", a.Dims, b.Dims)
	}
}

func normal(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// embedding returns the bytes of the table that input_ids are looked up in.
func embedding(t *testing.T, m *onnx.Model) string {
	t.Helper()
	for _, n := range m.Graph.Nodes {
		if n.Op == "Gather" && n.Input(1) == "input_ids" {
			b, err := m.Graph.Initializer(n.Input(0)).Bytes()
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
	t.Fatal("no embedding")
	return ""
}

// TestBackboneForms: every form leaves the same backbone, which stops at the last norm.
func TestBackboneForms(t *testing.T) {
	eachForm(t, func(t *testing.T, d *onnxtest.Decoder, m *onnx.Model) {
		h, _, _ := head(t, m)
		b, err := m.Backbone(h)
		if err != nil {
			t.Fatal(err)
		}
		out := b.Graph.Outputs
		if len(out) != 1 || out[0].Name != onnx.HiddenName || out[0].DType != onnx.Float32 || out[0].Shape[2].Size != int64(d.D) {
			t.Errorf("outputs are %+v", out)
		}
		if len(b.Graph.Inputs) != len(m.Graph.Inputs) {
			t.Errorf("%d inputs, want %d", len(b.Graph.Inputs), len(m.Graph.Inputs))
		}
		for _, n := range b.Graph.Nodes {
			if n.Op == "MatMulNBits" || n.Op == "DequantizeLinear" || n.Op == "Gemm" || n.Op == "Tanh" {
				t.Errorf("backbone still has %s", n.Op)
			}
		}
		if tied := b.Graph.Initializer("model.embed_tokens.weight"); tied == nil && d.Form != onnxtest.CastTied {
			t.Error("the embedding was pruned")
		}
	})
}
