//go:build cgo

package ort

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// Cut into runs that follow each other, alone and in every kind of batch the graph can do, a text
// has the log-probs of the whole one.
func TestContinuedRunsGiveTheWholeText(t *testing.T) {
	r := openRuntime(t)
	t.Run("made", func(t *testing.T) {
		for name, opt := range decoders() {
			t.Run(name, func(t *testing.T) {
				want := models.AnyPast
				switch {
				case opt.NoCache:
					want = models.NoContinuation
				case opt.NoPositions:
					want = models.EqualPast // positions are counted from the length of the cache
				}
				_, dir := writeDecoder(t, opt)
				tolerance := decoderTolerance
				if opt.Float16 {
					tolerance = decoderHalfTolerance
				}
				checkContinued(t, openSplit(t, r, filepath.Join(dir, "model.onnx")), want, tolerance)
			})
		}
	})
	for model, want := range map[string]models.Continuation{
		"stories260K/model.onnx":                              models.AnyPast,
		"stories260K/variants/torch_export.onnx":              models.AnyPast,
		"stories260K/variants/lmhead_nbits.onnx":              models.AnyPast,
		"stories260K/variants/fp16.onnx":                      models.AnyPast,
		"stories260K/variants/nocache.onnx":                   models.NoContinuation,
		"stories260K-hub/onnx/model.onnx":                     models.AnyPast,
		"tinystories-ple/model.onnx":                          models.AnyPast,
		"third-party/genai-tiny-random-llama-fp16/model.onnx": models.NoContinuation, // its mask takes one token after others
	} {
		t.Run(model, func(t *testing.T) {
			tolerance := sameTolerance
			if strings.Contains(model, "fp16") {
				tolerance = halfTolerance
			}
			checkContinued(t, openSplit(t, r, sharedModel(t, model)), want, tolerance)
		})
	}
}

func checkContinued(t *testing.T, s split, want models.Continuation, tolerance float64) {
	t.Helper()
	kind := s.backbone.Traits().Continuation
	if kind != want {
		t.Fatalf("runs can be continued: %s, want %s", kind, want)
	}
	if kind == models.NoContinuation {
		run := &models.Run{IDs: []int32{1}, Past: []*models.Cache{{Tokens: 1}}}
		if err := s.backbone.Run(t.Context(), []*models.Run{run}); err == nil {
			t.Error("a run after another gives no error")
		}
		return
	}
	texts := drawnTexts(s.engine.Vocabulary().V, 60, 41, 40, 33, 9)
	cuts := [][]int{{20, 30}, {1, 39}, {7, 8}, {16, 31}, {3, 4}}
	if kind == models.EqualPast {
		cuts = [][]int{{4, 6}, {4, 6}, {4, 6}, {4, 6}, {4, 6}}
	}
	var whole [][]float32
	for _, x := range texts {
		h, err := s.hidden(t, [][]int32{x.IDs}, []int{0})
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, h[0])
	}
	worst := 0.0
	for i, got := range s.pieces(t, texts, cuts, kind) {
		targets := texts[i].IDs[1:]
		worst = max(worst, maxDiff(t, s.score(t, got, targets), s.score(t, whole[i], targets)))
	}
	t.Logf("largest difference: %.2g nats a token", worst)
	if !(worst <= tolerance) {
		t.Errorf("largest difference is %g nats a token, want at most %g", worst, tolerance)
	}
}

// pieces runs texts in three runs each, cut at cuts, and joins their states.
func (s split) pieces(t *testing.T, texts []goldenText, cuts [][]int, kind models.Continuation) [][]float32 {
	t.Helper()
	states := make([][]float32, len(texts))
	pasts := make([][]*models.Cache, len(texts))
	for piece := range 3 {
		var runs []*models.Run
		for i, x := range texts {
			at := append(append([]int{0}, cuts[i]...), len(x.IDs)-1)
			runs = append(runs, &models.Run{Past: pasts[i], IDs: x.IDs[at[piece]:at[piece+1]], Keep: piece < 2})
		}
		size := len(runs)
		if kind == models.OneByOne && piece > 0 {
			size = 1
		}
		for batch := range slices.Chunk(runs, size) {
			if err := s.backbone.Run(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		for i, r := range runs {
			states[i] = append(states[i], r.Hidden...)
			pasts[i] = append(pasts[i], r.Cache)
		}
	}
	return states
}

func (s split) score(t *testing.T, hidden []float32, targets []int32) []float64 {
	t.Helper()
	var out models.Tokens
	if err := models.Forward(t.Context(), s.engine, models.Rows{N: len(targets), Hidden: hidden, Targets: targets}, models.Addition{}, &out); err != nil {
		t.Fatal(err)
	}
	return out.Logps
}

// A graph whose mask hides nothing can't be continued behind padding.
func TestTheProbeSeesAMaskThatIsNotUsed(t *testing.T) {
	r := openRuntime(t)
	_, dir := writeDecoder(t, onnxtest.Default())
	m, err := onnx.Load(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, n := range m.Graph.Nodes {
		for i, input := range n.Inputs {
			if input == "attention_mask" {
				n.Inputs[i] = m.Graph.AddInitializer(onnx.Int64Tensor("always", []int64{1}, 1, 1))
			}
		}
	}
	if kind := splitModel(t, r, m).backbone.Traits().Continuation; kind != models.EqualPast {
		t.Errorf("runs can be continued: %s, want %s", kind, models.EqualPast)
	}
}
