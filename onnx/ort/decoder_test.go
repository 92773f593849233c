//go:build cgo

package ort

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// decoderTolerance is nats a token between a float32 graph and float64 Go: two layers,
// D 32, logits to 20. Of a float16 graph it is what 11 bits leave of them.
const (
	decoderTolerance     = 1e-4
	decoderHalfTolerance = 0.02
)

// decoders are the models made for tests, in every form of head and of graph.
func decoders() map[string]onnxtest.Options {
	all := map[string]onnxtest.Options{}
	for _, form := range onnxtest.Forms {
		opt := onnxtest.Default()
		opt.Form = form
		all["head="+string(form)] = opt
		opt.Float16 = true
		all["head="+string(form)+",float16"] = opt
	}
	for name, change := range map[string]func(*onnxtest.Options){
		"int32":          func(o *onnxtest.Options) { o.Int32 = true },
		"no cache":       func(o *onnxtest.Options) { o.NoCache = true },
		"no positions":   func(o *onnxtest.Options) { o.NoPositions = true },
		"no cache, bare": func(o *onnxtest.Options) { o.NoCache, o.NoPositions = true, true },
		"keep logits":    func(o *onnxtest.Options) { o.KeepLogits = true },
		"keep, int32":    func(o *onnxtest.Options) { o.KeepLogits, o.Int32 = true, true },
		"external":       func(o *onnxtest.Options) { o.External = true },
		"external half":  func(o *onnxtest.Options) { o.External, o.Float16 = true, true },
		"bias":           func(o *onnxtest.Options) { o.Bias = true },
		"scale":          func(o *onnxtest.Options) { o.Scale = 0.25 },
		"softcap":        func(o *onnxtest.Options) { o.Softcap = 5 },
		"everything": func(o *onnxtest.Options) {
			o.Bias, o.Scale, o.Softcap, o.KeepLogits, o.Int32, o.External = true, 0.5, 5, true, true, true
		},
		"one layer, odd V": func(o *onnxtest.Options) { o.Layers, o.V = 1, 65 },
	} {
		opt := onnxtest.Default()
		change(&opt)
		all[name] = opt
	}
	return all
}

func writeDecoder(t *testing.T, opt onnxtest.Options) (*onnxtest.Decoder, string) {
	t.Helper()
	d, dir := onnxtest.New(opt), t.TempDir()
	if err := d.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	return d, dir
}

func TestEveryGraphFormGivesTheDefinition(t *testing.T) {
	r := openRuntime(t)
	for name, opt := range decoders() {
		t.Run(name, func(t *testing.T) {
			d, dir := writeDecoder(t, opt)
			tolerance := decoderTolerance
			if opt.Float16 {
				tolerance = decoderHalfTolerance
			}
			s := openSplit(t, r, filepath.Join(dir, "model.onnx"))
			lm := openLM(t, r, dir)
			texts := drawnTexts(opt.V, 2, 3, 15, 16, 17)
			seqs, from := unzip(texts)
			worst := map[string]float64{}
			for i, got := range s.logps(t, seqs, from) {
				want := d.Logps(seqs[i], from[i])
				worst["backbone and head"] = max(worst["backbone and head"], maxDiff(t, got, want))
				own, err := lm.Logps(t.Context(), seqs[i], from[i])
				if err != nil {
					t.Fatal(err)
				}
				worst["whole model"] = max(worst["whole model"], maxDiff(t, own, want))
			}
			t.Log(worst)
			for what, d := range worst {
				if !(d <= tolerance) {
					t.Errorf("%s: largest difference is %g nats a token, want at most %g", what, d, tolerance)
				}
			}
			checkNext(t, d, lm, seqs[4], tolerance)
		})
	}
}

// checkNext reads seq in uneven pieces and compares each piece's next logits with
// those of the definition.
func checkNext(t *testing.T, d *onnxtest.Decoder, lm *LM, seq []int32, tolerance float64) {
	t.Helper()
	want := d.Logits(seq)
	var p Prefix
	for _, end := range []int{1, 2, 5, 6, len(seq)} {
		got, err := lm.Next(t.Context(), &p, seq[p.Len():end], nil)
		if err != nil {
			t.Fatal(err)
		}
		for v, x := range got {
			if diff := math.Abs(float64(x) - want[end-1][v]); !(diff <= tolerance) {
				t.Fatalf("after %d tokens logit %d is %g, want %g", end, v, x, want[end-1][v])
			}
		}
	}
}

func TestNonFiniteHiddenStateIsNamed(t *testing.T) {
	r := openRuntime(t)
	d, dir := writeDecoder(t, onnxtest.Default())
	m, err := onnx.Load(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// Token 7 gets an embedding of NaN. A masked score of NaN is NaN, so it spoils its
	// whole sequence, but no other; the first position that was asked for is named.
	spoilEmbedding(t, m, d.V, 7)
	s := splitModel(t, r, m)
	seqs := [][]int32{{1, 2, 3}, {4, 5, 7, 6, 1}}
	_, err = s.hidden(t, seqs, []int{0, 1})
	var bad *NonFiniteError
	if !errors.As(err, &bad) || bad.Sequence != 1 || bad.Position != 1 {
		t.Fatalf("error is %v, want sequence 1 position 1", err)
	}
	if want := "ort: sequence 1 position 1: hidden state holds NaN"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error is %q, want it to begin with %q", err, want)
	}
}

func spoilEmbedding(t *testing.T, m *onnx.Model, v, token int) {
	t.Helper()
	for i, w := range m.Graph.Initializers {
		if len(w.Dims) != 2 || w.Dims[0] != int64(v) || w.DType != onnx.Float32 {
			continue
		}
		data, err := w.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		spoilt := append([]byte(nil), data...)
		width := int(w.Dims[1])
		for k := range width {
			viewAs[float32](spoilt)[token*width+k] = float32(math.NaN())
		}
		m.Graph.Initializers[i] = onnx.NewTensor(w.Name, w.DType, w.Dims, spoilt)
		return
	}
	t.Fatal("the model has no embedding")
}

func TestNewLMRefuses(t *testing.T) {
	r := openRuntime(t)
	if _, err := r.NewLM(filepath.Join(t.TempDir(), "none.onnx"), DefaultOptions()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error is %v, want one that wraps os.ErrNotExist", err)
	}
	if _, err := r.NewLM(t.TempDir(), DefaultOptions()); err == nil || !strings.Contains(err.Error(), "neither model.onnx nor onnx/model.onnx") {
		t.Errorf("empty folder: error is %v", err)
	}
	_, dir := writeDecoder(t, onnxtest.Default())
	lm := openLM(t, r, dir)
	for _, from := range []int{-1, 0, 4} {
		if _, err := lm.Logps(t.Context(), []int32{1, 2, 3}, from); err == nil {
			t.Errorf("log-probs from position %d of 3 give no error", from)
		}
	}
	if got, err := lm.Logps(t.Context(), []int32{1, 2, 3}, 3); err != nil || len(got) != 0 {
		t.Errorf("log-probs of no token: %v, %v", got, err)
	}
	if _, err := lm.Next(t.Context(), new(Prefix), nil, nil); err == nil {
		t.Error("a token after nothing gives no error")
	}
	if err := fmt.Sprint(lm.Close(), lm.Close()); err != "<nil> <nil>" {
		t.Errorf("closing twice: %s", err)
	}
	if _, err := lm.Logps(t.Context(), []int32{1, 2}, 1); !errors.Is(err, errClosed) {
		t.Errorf("after Close: error is %v, want %v", err, errClosed)
	}
}
