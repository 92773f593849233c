//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/ort"
)

// A policyJob is what testdata/node/policy.mjs is told.
type policyJob struct {
	Models    []string   `json:"models"`
	Sequences []sequence `json:"sequences"`
	Prompts   [][]int32  `json:"prompts"`
	Tokens    int        `json:"tokens"`
	Stop      []int32    `json:"stop"`
}

type sequence struct {
	IDs  []int32 `json:"ids"`
	From int     `json:"from"`
}

// spoken is what a model says in a job: log-probs of the sequences, nats, and
// continuations of the prompts.
type spoken struct {
	Version   string      `json:"version"`
	Logps     [][]float64 `json:"logps"`
	Generated [][]int32   `json:"generated"`
}

func (x *exported) job() policyJob {
	job := policyJob{Models: []string{x.base, x.ONNX}, Tokens: generatedTokens, Stop: x.encoder.EOS()}
	for i, p := range x.pairs {
		for _, completion := range [][]int32{p.Chosen, p.Rejected} {
			job.Sequences = append(job.Sequences, sequence{slices.Concat(p.Prompt, completion), len(p.Prompt)})
		}
		if i < heldOutPrompts {
			job.Prompts = append(job.Prompts, p.Prompt)
		}
	}
	return job
}

// runsInNode compares base model and policy in onnxruntime-node with both here, and
// the policy with the trained head on the base model's unrounded hidden states.
func (x *exported) runsInNode(t *testing.T) {
	modules := nodeModules(t, "onnxruntime-node")
	job := x.job()
	got := runNode[spoken](t, "policy.mjs", modules, job)
	rt := openORT(t)
	for i, path := range job.Models {
		want := speak(t, rt, path, job)
		diff := maxDiff(t, got[i].Logps, want.Logps)
		if !(diff <= x.tolerance) {
			t.Errorf("%s: log-probs are %g from those here", path, diff)
		}
		if d := cmp.Diff(want.Generated, got[i].Generated); d != "" {
			t.Errorf("%s: generated (-here +node):\n%s", path, d)
		}
		t.Logf("ONNX Runtime %s, %s: %d sequences within %.1e, %d tokens generated alike",
			got[i].Version, []string{"base model", "policy"}[i], len(job.Sequences), diff, len(slices.Concat(got[i].Generated...)))
	}
	diff := maxDiff(t, got[1].Logps, x.headLogps(t, rt, job.Sequences))
	if !(diff <= x.tolerance) {
		t.Errorf("the policy's log-probs are %g from the head's", diff)
	}
	t.Logf("policy in node and head on unrounded hidden states: within %.1e", diff)
}

func openORT(t *testing.T) *ort.Runtime {
	t.Helper()
	lib, err := ort.FindLibrary(library(t))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := ort.Open(lib)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// speak does a job with one model in this process.
func speak(t *testing.T, rt *ort.Runtime, path string, job policyJob) spoken {
	t.Helper()
	lm, err := rt.NewLM(path, ort.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer lm.Close()
	var s spoken
	for _, seq := range job.Sequences {
		logps, err := lm.Logps(t.Context(), seq.IDs, seq.From)
		if err != nil {
			t.Fatal(err)
		}
		s.Logps = append(s.Logps, logps)
	}
	for _, prompt := range job.Prompts {
		ids, err := lm.Generate(t.Context(), prompt, ort.GenerateOptions{MaxTokens: job.Tokens, Stop: job.Stop})
		if err != nil {
			t.Fatal(err)
		}
		s.Generated = append(s.Generated, ids)
	}
	return s
}

// headLogps are of the exported adapter, multiplied in plain Go, on the hidden states of
// the base model.
func (x *exported) headLogps(t *testing.T, rt *ort.Runtime, sequences []sequence) [][]float64 {
	t.Helper()
	base := load(t, x.base)
	backbone, engine := openHead(t, rt, base)
	lora, _, err := models.ReadAdapter(x.Adapter)
	if err != nil {
		t.Fatal(err)
	}
	var logps [][]float64
	for _, seq := range sequences {
		run := &models.Run{IDs: seq.IDs[:len(seq.IDs)-1], From: seq.From - 1}
		if err := backbone.Run(t.Context(), []*models.Run{run}); err != nil {
			t.Fatal(err)
		}
		targets := seq.IDs[seq.From:]
		var tokens models.Tokens
		if err := models.Score(t.Context(), engine, lora, models.Rows{N: len(targets), Hidden: run.Hidden, Targets: targets}, &tokens); err != nil {
			t.Fatal(err)
		}
		logps = append(logps, tokens.Logps)
	}
	return logps
}

// openHead splits a model in what computes hidden states and what multiplies by its matrix.
func openHead(t *testing.T, rt *ort.Runtime, m *onnx.Model) (*ort.Backbone, models.Engine) {
	t.Helper()
	head, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	weight, bias, err := head.Dense()
	if err != nil {
		t.Fatal(err)
	}
	io, err := m.IO()
	if err != nil {
		t.Fatal(err)
	}
	split, err := m.Backbone(head)
	if err != nil {
		t.Fatal(err)
	}
	backbone, err := rt.NewBackbone(split, io, ort.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backbone.Close() })
	return backbone, models.NewGonum(&models.Vocabulary{
		V: head.V, D: head.D, Weight: weight, Bias: bias, Scale: head.Scale, Softcap: head.Softcap,
	})
}

// maxDiff is the largest distance of two numbers, NaN if there is one.
func maxDiff(t *testing.T, got, want [][]float64) float64 {
	t.Helper()
	worst := 0.0
	for i := range want {
		if len(got[i]) != len(want[i]) {
			t.Fatalf("sequence %d has %d log-probs, want %d", i, len(got[i]), len(want[i]))
		}
		for j := range want[i] {
			worst = max(worst, math.Abs(got[i][j]-want[i][j]))
		}
	}
	return worst
}

// A textJob is what testdata/node/generate.mjs is told, a continued what it says of one prompt.
type textJob struct {
	Folder    string   `json:"folder"`
	Subfolder string   `json:"subfolder"`
	Prompts   []string `json:"prompts"`
	Tokens    int      `json:"tokens"`
}

type continued struct {
	Prompt    []int32 `json:"prompt"`
	Generated []int32 `json:"generated"`
	Text      string  `json:"text"`
}

// runsInTransformers gives transformers.js the folder and text, nothing else.
func (x *exported) runsInTransformers(t *testing.T) {
	if x.foreign != "" {
		t.Skip("transformers.js can't generate from this folder: " + x.foreign)
	}
	modules := nodeModules(t, "@huggingface/transformers")
	below, err := filepath.Rel(x.Out, filepath.Dir(x.ONNX))
	if err != nil {
		t.Fatal(err)
	}
	job := textJob{Folder: x.Out, Subfolder: below, Tokens: generatedTokens}
	var here policyJob
	for i := range heldOutPrompts {
		ids, err := x.encoder.Prompt(x.texts[i])
		if err != nil {
			t.Fatal(err)
		}
		job.Prompts, here.Prompts = append(job.Prompts, x.texts[i].Plain), append(here.Prompts, ids)
	}
	here.Tokens, here.Stop = generatedTokens, x.encoder.EOS()
	want := speak(t, openORT(t), x.ONNX, here)
	for i, got := range runNode[continued](t, "generate.mjs", modules, job) {
		w := continued{here.Prompts[i], want.Generated[i], x.encoder.Decode(want.Generated[i])}
		if d := cmp.Diff(w, got); d != "" {
			t.Errorf("prompt %d (-here +transformers.js):\n%s", i, d)
		}
		t.Logf("%q: %q", job.Prompts[i], got.Text)
	}
}

// nodeModules finds a node_modules folder that holds a package, or skips.
func nodeModules(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	built, err := filepath.Abs(filepath.Join("..", "..", "build", "node", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{os.Getenv("DPO_PIPE_NODE_MODULES"), built} {
		if _, err := os.Stat(filepath.Join(dir, name, "package.json")); dir != "" && err == nil {
			return dir
		}
	}
	t.Skipf("npm's %s is not installed: run `make node`, or set DPO_PIPE_NODE_MODULES to a node_modules folder that holds it", name)
	return ""
}

// runNode gives a script of testdata/node its job and reads the JSON lines it prints.
func runNode[T any](t *testing.T, script, modules string, job any) []T {
	t.Helper()
	in, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "node", script), modules)
	cmd.Stdin = bytes.NewReader(in)
	var lines []T
	for decoder := json.NewDecoder(bytes.NewReader(output(t, cmd))); decoder.More(); {
		var line T
		if err := decoder.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// output runs a program that must succeed and returns what it prints.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.Bytes())
	}
	return out
}
