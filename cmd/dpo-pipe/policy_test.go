//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// How far log-probs of another runtime may be from dpo-pipe's, nats a token.
const (
	// near leaves room for another order of float32 sums.
	near = 1e-3
	// nearHalf is for logits that are computed in 16 bits, whose own step is 2^-6 at 20.
	nearHalf = 6e-2
)

const (
	// trainedPairs come first in a case's data, heldOutPairs behind them.
	trainedPairs, heldOutPairs = 60, 8
	// heldOutPrompts are continued by generatedTokens.
	heldOutPrompts, generatedTokens = 4, 24
)

// A policyCase is a model to align and export.
type policyCase struct {
	name, model, file, data string
	// tolerance is near or nearHalf.
	tolerance float64
	// foreign says why transformers.js can't generate from the folder, base model or policy.
	foreign string
}

// policyCases are the built-in model and, where they are there, the shared ones in all their forms.
func policyCases(t *testing.T) []policyCase {
	t.Helper()
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	cases := []policyCase{{"demo", filepath.Join(dir, demo.ModelDir), "", filepath.Join(dir, demo.DataFile), near, ""}}
	shared, err := filepath.Abs(filepath.Join("..", "..", "..", "shared"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(shared, "models")); err != nil {
		t.Logf("only the built-in model: no shared ones at %s", shared)
		return cases
	}
	stories := filepath.Join(shared, "data", "stories-sentiment", "train.jsonl")
	add := func(name, model, file, data string, tolerance float64, foreign string) {
		cases = append(cases, policyCase{name, filepath.Join(shared, "models", model), file, data, tolerance, foreign})
	}
	add("tinystories-ple", "tinystories-ple", "", filepath.Join(shared, "data", "tinystories-synthetic", "pairs.jsonl"),
		near, "it has no architecture ple_tinylm")
	add("stories260K", "stories260K", "", stories, near, "")
	add("hub-fp16", "stories260K-hub", "model_fp16.onnx", stories, nearHalf, "")
	add("genai-fp16", filepath.Join("third-party", "genai-tiny-random-llama-fp16"), "", stories, nearHalf, "the folder has no config.json")
	variants := filepath.Join("stories260K", "variants")
	for _, v := range []string{"external", "lmhead_gemm", "lmhead_matmul", "lmhead_nbits", "torch_export"} {
		add(v, variants, v+".onnx", stories, near, "")
	}
	add("fp16", variants, "fp16.onnx", stories, nearHalf, "")
	add("nocache", variants, "nocache.onnx", stories, near, "it reads one token at a time, which takes a cache")
	return cases
}

// TestPolicyOutsideGo exports policies with the command and reads them by programs
// that are not ours: they are to say the same.
func TestPolicyOutsideGo(t *testing.T) {
	library(t)
	for i, c := range policyCases(t) {
		if i > 0 && testing.Short() {
			return
		}
		t.Run(c.name, func(t *testing.T) {
			x := c.export(t)
			t.Run("weights", x.keepsWeights)
			t.Run("onnxruntime-node", x.runsInNode)
			t.Run("transformers.js", x.runsInTransformers)
		})
	}
}

// An exported policy, and the held-out pairs it is tried on.
type exported struct {
	policyCase
	pipeline.ExportResult
	base    string // the .onnx file of the base model
	encoder *encode.Encoder
	texts   []datasets.Text // held-out prompts
	pairs   []encode.Pair
}

// export runs the stages on a model.
func (c policyCase) export(t *testing.T) *exported {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(c.data)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	for name, part := range map[string][][]byte{
		"train.jsonl": lines[:trainedPairs], "held-out.jsonl": lines[trainedPairs : trainedPairs+heldOutPairs],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Join(part, nil), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	x := &exported{policyCase: c}
	var out []byte
	for _, args := range [][]string{
		{"precompute-ref", "--model", c.model, "--model-file", c.file, "--data", "train.jsonl", "--out", "cache"},
		{"train", "--cache", "cache", "--out", "run", "--epochs", "2", "--lr", "1e-3"},
		{"export", "--checkpoint", "run/last", "--model", c.model, "--model-file", c.file, "--out", "policy", "--json"},
	} {
		out = output(t, command(t.Context(), t, dir, args...))
	}
	if err := json.Unmarshal(out, &x.ExportResult); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	x.Out, x.ONNX, x.Adapter = filepath.Join(dir, x.Out), filepath.Join(dir, x.ONNX), filepath.Join(dir, x.Adapter)
	files, err := pipeline.FindModel(c.model, c.file)
	if err != nil {
		t.Fatal(err)
	}
	x.base = files.ONNX
	x.readHeldOut(t, filepath.Join(dir, "held-out.jsonl"))
	v := x.Verified
	t.Logf("%s: by dpo-pipe itself %.1e from the head over %d tokens; rounding of features moves it by %.1e, training by %.2f",
		x.Form, v.MaxDiff, v.Tokens, v.MaxRounding, v.MaxMoved)
	if v.MaxMoved < 10*near {
		t.Errorf("the policy is the base model: its log-probs moved by %g", v.MaxMoved)
	}
	return x
}

// readHeldOut encodes pairs by the tokenizer that was exported.
func (x *exported) readHeldOut(t *testing.T, path string) {
	t.Helper()
	var err error
	if x.encoder, err = encode.Open(x.Out, encode.DefaultOptions()); err != nil {
		t.Fatal(err)
	}
	r, err := datasets.Open([]string{path}, datasets.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range heldOutPairs {
		text, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pair, err := x.encoder.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		x.texts, x.pairs = append(x.texts, text.Prompt), append(x.pairs, pair)
	}
}

// keepsWeights wants every tensor of the base model in the export with its bytes, but
// for the matrix of a head that nothing else used; the input embedding in any case.
func (x *exported) keepsWeights(t *testing.T) {
	base, policy := load(t, x.base), load(t, x.ONNX)
	head, err := base.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	same, own := 0, []string{} // the head's own matrix may change
	for _, want := range base.Graph.Initializers {
		n, err := want.Elements()
		if err != nil {
			t.Fatal(err)
		}
		got := policy.Graph.Initializer(want.Name)
		switch {
		case got != nil && got.DType == want.DType && slices.Equal(got.Dims, want.Dims) && bytes.Equal(content(t, got), content(t, want)):
			same++
		case !head.Tied && n == int64(head.V*head.D) && len(own) == 0:
			own = append(own, want.Name)
		default:
			t.Errorf("tensor %q %v is gone or changed", want.Name, want.Dims)
		}
	}
	before, after := embedding(t, base, head), embedding(t, policy, head)
	if before.Name != after.Name || !bytes.Equal(content(t, before), content(t, after)) {
		t.Errorf("the input embedding %q became %q", before.Name, after.Name)
	}
	t.Logf("%d of %d tensors have their bytes, the embedding %q %v among them; the others are the head's %q",
		same, len(base.Graph.Initializers), after.Name, after.Dims, own)
}

func load(t *testing.T, path string) *onnx.Model {
	t.Helper()
	m, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func content(t *testing.T, tensor *onnx.Tensor) []byte {
	t.Helper()
	b, err := tensor.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// embedding is the [V,D] tensor that rows are gathered from.
func embedding(t *testing.T, m *onnx.Model, h *onnx.Head) *onnx.Tensor {
	t.Helper()
	for _, n := range m.Graph.Nodes {
		table := m.Graph.Initializer(n.Input(0))
		if n.Op == "Gather" && table != nil && slices.Equal(table.Dims, []int64{int64(h.V), int64(h.D)}) {
			return table
		}
	}
	t.Fatalf("no Gather from a tensor [%d,%d]", h.V, h.D)
	return nil
}
