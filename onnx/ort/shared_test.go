//go:build cgo

package ort

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// sharedFolder holds real models for those who develop here; a fresh clone has none.
var sharedFolder = filepath.Join("..", "..", "..", "shared", "models")

func sharedModel(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(sharedFolder, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the model %s is not on this machine: %v", name, err)
	}
	return path
}

// goldenText is a text with the log-probs that another implementation gives its
// completion; Logprobs[i] belongs to IDs[PromptLen+i].
type goldenText struct {
	IDs       []int32
	PromptLen int `json:"prompt_len"`
	Logprobs  []float64
}

func goldenTexts(t testing.TB, folder string) []goldenText {
	t.Helper()
	data, err := os.ReadFile(sharedModel(t, folder+"/golden_logprobs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []goldenText
	if err := json.Unmarshal(data, &texts); err != nil {
		t.Fatal(err)
	}
	return texts
}

// split is a model as the reference pass uses it: backbone and head engine.
type split struct {
	backbone *Backbone
	engine   models.Engine
}

func openSplit(t testing.TB, r *Runtime, path string) split {
	t.Helper()
	m, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return splitModel(t, r, m)
}

func splitModel(t testing.TB, r *Runtime, m *onnx.Model) split {
	t.Helper()
	io, err := m.IO()
	if err != nil {
		t.Fatal(err)
	}
	head, err := m.FindHead()
	if err != nil {
		t.Fatal(err)
	}
	cut, err := m.Backbone(head, io.Presents()...)
	if err != nil {
		t.Fatal(err)
	}
	weight, bias, err := head.Dense()
	if err != nil {
		t.Fatal(err)
	}
	v := &models.Vocabulary{V: head.V, D: head.D, Weight: weight, Bias: bias, Scale: head.Scale, Softcap: head.Softcap}
	var s split
	if s.backbone, err = r.NewBackbone(cut, io, DefaultOptions()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.backbone.Close() })
	if s.engine, err = r.NewEngine(v, DefaultOptions()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.engine.Close() })
	return s
}

// hidden runs seqs as one batch; from[i] is the first state wanted of the i-th. The last
// token predicts nothing, so it is not run.
func (s split) hidden(t testing.TB, seqs [][]int32, from []int) ([][]float32, error) {
	t.Helper()
	runs := make([]*models.Run, len(seqs))
	for i, ids := range seqs {
		runs[i] = &models.Run{IDs: ids[:len(ids)-1], From: from[i]}
	}
	err := s.backbone.Run(t.Context(), runs)
	hidden := make([][]float32, len(seqs))
	for i, r := range runs {
		hidden[i] = r.Hidden
	}
	return hidden, err
}

// logps scores seqs[i][from[i]:] in one batch under the frozen head.
func (s split) logps(t testing.TB, seqs [][]int32, from []int) [][]float64 {
	t.Helper()
	return s.headLogps(t, nil, seqs, from)
}

// headLogps does so under a policy head, nil for the frozen one.
func (s split) headLogps(t testing.TB, head models.Head, seqs [][]int32, from []int) [][]float64 {
	t.Helper()
	starts := make([]int, len(from))
	for i, f := range from {
		starts[i] = f - 1
	}
	hidden, err := s.hidden(t, seqs, starts)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]float64, len(seqs))
	for i, h := range hidden {
		targets := seqs[i][from[i]:]
		var tokens models.Tokens
		rows := models.Rows{N: len(targets), Hidden: h, Targets: targets}
		if head == nil {
			err = models.Forward(t.Context(), s.engine, rows, models.Addition{}, &tokens)
		} else {
			err = models.Score(t.Context(), s.engine, head, rows, &tokens)
		}
		if err != nil {
			t.Fatal(err)
		}
		out[i] = tokens.Logps
	}
	return out
}

// texts of a model that has no golden file of its own: ids drawn below v.
func drawnTexts(v int, lengths ...int) []goldenText {
	texts := make([]goldenText, len(lengths))
	state := uint32(12345)
	for i, n := range lengths {
		texts[i].PromptLen = 1 + n/3
		for range n {
			state = state*1664525 + 1013904223
			texts[i].IDs = append(texts[i].IDs, int32(state>>8)%int32(v))
		}
	}
	return texts
}

func unzip(texts []goldenText) (seqs [][]int32, from []int) {
	for _, g := range texts {
		seqs, from = append(seqs, g.IDs), append(from, g.PromptLen)
	}
	return seqs, from
}
