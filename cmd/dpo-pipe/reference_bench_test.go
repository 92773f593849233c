//go:build cgo && linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
	"github.com/dpo-pipe/dpo-pipe/onnx/ort"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// benchVariable chooses the model of BenchmarkReference: smollm2-135m, or else a small
// one that shows that it runs.
const benchVariable = "DPO_PIPE_BENCH_MODEL"

// referenceShape is a model and how many pairs are timed.
type referenceShape struct {
	name         string
	options      onnxtest.Options
	pairs, plain int
}

func benchShape() referenceShape {
	opt := onnxtest.Default()
	if os.Getenv(benchVariable) != "smollm2-135m" {
		opt.V, opt.D, opt.FF = 512, 64, 128
		return referenceShape{"tiny", opt, 64, 16}
	}
	opt.V, opt.D, opt.FF, opt.Layers, opt.Heads, opt.KVHeads, opt.External = 49152, 576, 1536, 30, 9, 3, true
	return referenceShape{"smollm2-135m", opt, 64, 12}
}

// BenchmarkReference times a reference pass from data file to cache in pairs a second. plain-x is how
// many times that is what the plain way does: in file order, four pairs a batch
// padded on the right, all logits, log-softmax outside. matmul-share is its share of the rate
// at which the bare products of the model's shapes give the multiply-adds that no pass
// can do without. All three are measured in one run, what the pass is compared with before and after
// it. The names that begin with cpu are the same by processor time, which other work on the machine
// disturbs less.
func BenchmarkReference(b *testing.B) {
	shape := benchShape()
	bench := &referenceBench{referenceShape: shape, dir: b.TempDir()}
	bench.write(b)
	for _, system := range []int{0, 400} {
		b.Run(fmt.Sprintf("model=%s/system=%d", shape.name, system), func(b *testing.B) {
			pairs := bench.conversations(system)
			var pass, plain, products spent
			var result pipeline.PrecomputeResult
			for b.Loop() {
				measure := func() {
					plain = plain.plus(bench.plainPass(b, pairs))
					products = products.plus(bench.products(b))
				}
				measure()
				took, r := bench.pass(b, pairs)
				pass, result = pass.plus(took), r
				measure()
			}
			n, twice := float64(b.N), 2*float64(b.N)
			scored, needed := n*float64(len(pairs)), n*bench.multiplyAdds(pairs, system)
			b.ReportMetric(scored/pass.wall, "pairs/s")
			for name, s := range map[string][3]float64{"": {pass.wall, plain.wall, products.wall}, "cpu-": {pass.cpu, plain.cpu, products.cpu}} {
				b.ReportMetric(scored/s[0]/(twice*float64(shape.plain)/s[1]), name+"plain-x")
				b.ReportMetric(needed/s[0]/(twice*bench.productAdds()/s[2]), name+"matmul-share")
			}
			b.ReportMetric(2e-9*twice*bench.productAdds()/products.wall, "product-GFLOP/s")
			b.ReportMetric(result.Shared(), "shared")
			b.ReportMetric(result.Padding(), "padding")
		})
	}
}

// spent are seconds by the clock and of all processors.
type spent struct{ wall, cpu float64 }

func (s spent) plus(t spent) spent { return spent{s.wall + t.wall, s.cpu + t.cpu} }

// clock returns a function that says what was spent since.
func clock() func() spent {
	start, before := time.Now(), processorSeconds()
	return func() spent { return spent{time.Since(start).Seconds(), processorSeconds() - before} }
}

func processorSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it fails for no arguments but wrong ones
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

type referenceBench struct {
	referenceShape
	dir string
}

// write makes the model folder; its tokens are letters.
func (r *referenceBench) write(b *testing.B) {
	if err := onnxtest.New(r.options).WriteDir(r.dir); err != nil {
		b.Fatal(err)
	}
	vocab := map[string]int{}
	for i := range 26 {
		vocab[string(rune('a'+i))] = i
	}
	level := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
	tokenizer := map[string]any{
		"added_tokens": []any{map[string]any{
			"id": 26, "content": "<end>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		}},
		"normalizer": nil, "pre_tokenizer": level, "post_processor": nil, "decoder": level,
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": []any{}},
	}
	for name, doc := range map[string]any{"tokenizer.json": tokenizer, "tokenizer_config.json": map[string]any{"eos_token": "<end>"}} {
		text, err := json.Marshal(doc)
		if err == nil {
			err = os.WriteFile(filepath.Join(r.dir, name), text, 0o666)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// conversation is a pair in letters: one letter is one token.
type conversation struct {
	Prompt   string `json:"prompt"`
	Chosen   string `json:"chosen"`
	Rejected string `json:"rejected"`
}

// conversations have prompts of 125 tokens on average behind a system prompt that all
// share, and completions of 40 to 50 with the end token.
func (r *referenceBench) conversations(system int) []conversation {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		var s strings.Builder
		for range n {
			s.WriteByte(byte('a' + rng.IntN(26)))
		}
		return s.String()
	}
	pairs := make([]conversation, r.pairs)
	shared := letters(system)
	for i := range pairs {
		pairs[i] = conversation{shared + letters(75+rng.IntN(101)), letters(39 + rng.IntN(11)), letters(39 + rng.IntN(11))}
	}
	return pairs
}

// pass is the product's.
func (r *referenceBench) pass(b *testing.B, pairs []conversation) (spent, pipeline.PrecomputeResult) {
	dir := b.TempDir()
	file := filepath.Join(dir, "pairs.jsonl")
	writeLines(b, file, pairs)
	rt, err := newRuntime(runtimeOptions{provider: "cpu"})
	if err != nil {
		b.Skip(err)
	}
	cfg := pipeline.DefaultPrecomputeConfig()
	cfg.Model, cfg.Data, cfg.Out = r.dir, []string{file}, filepath.Join(dir, "cache")
	cfg.Encode.ChatTemplate = "none"
	// Opening a model is not part of the rate: it is done once, however many pairs there are.
	var since func() spent
	result, err := pipeline.Precompute(context.Background(), cfg, opened{rt, &since}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return since(), result
}

// opened starts a clock when a runtime has opened what a pass needs.
type opened struct {
	pipeline.Runtime
	since *func() spent
}

func (o opened) OpenEngine(v *models.Vocabulary) (models.Engine, error) {
	e, err := o.Runtime.OpenEngine(v)
	*o.since = clock()
	return e, err
}

// plainPass scores the first pairs as one would without thinking. The logits are those of the whole model, run with all threads.
func (r *referenceBench) plainPass(b *testing.B, pairs []conversation) spent {
	m, err := onnx.Load(filepath.Join(r.dir, "model.onnx"))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	m.Graph.Outputs = []*onnx.ValueInfo{m.Graph.Output("logits")}
	opt := ort.DefaultOptions()
	opt.Lanes = 1
	whole := r.open(b, m, opt)
	defer whole.Close()
	since := clock()
	for at := 0; at < r.plain; at += 4 {
		var runs []*models.Run
		for _, p := range pairs[at:min(at+4, r.plain)] {
			for _, completion := range []string{p.Chosen, p.Rejected} {
				runs = append(runs, &models.Run{IDs: tokens(p.Prompt + completion)})
			}
		}
		if err := whole.Run(b.Context(), runs); err != nil {
			b.Fatal(err)
		}
		logSoftmax(runs, r.options.V)
	}
	return since()
}

func tokens(text string) []int32 {
	ids := make([]int32, len(text))
	for i := range ids {
		ids[i] = int32(text[i] - 'a')
	}
	return ids
}

// logSoftmax turns all logits into log-probs, a row of the batch on each core.
func logSoftmax(runs []*models.Run, v int) {
	var wg sync.WaitGroup
	for _, r := range runs {
		wg.Go(func() {
			for row := r.Hidden; len(row) > 0; row = row[v:] {
				top, sum := row[0], 0.0
				for _, z := range row[:v] {
					top = max(top, z)
				}
				for _, z := range row[:v] {
					sum += math.Exp(float64(z - top))
				}
				norm := top + float32(math.Log(sum))
				for i := range row[:v] {
					row[i] -= norm
				}
			}
		})
	}
	wg.Wait()
}

func (r *referenceBench) open(b *testing.B, m *onnx.Model, opt ort.Options) *ort.Backbone {
	lib, err := ort.FindLibrary("")
	if err != nil {
		b.Skip(err)
	}
	rt, err := ort.Open(lib)
	if err != nil {
		b.Fatal(err)
	}
	io := &onnx.IO{InputIDs: onnx.Port{Name: "input_ids", DType: onnx.Int64, Rank: 2}}
	if m.Graph.Output("logits") != nil {
		if io, err = m.IO(); err != nil {
			b.Fatal(err)
		}
	}
	backbone, err := rt.NewBackbone(m, io, opt)
	if err != nil {
		b.Fatal(err)
	}
	return backbone
}

// products times bare matrix products, as many and of the sizes that the layers have, on the rows of
// a batch and in as many lanes as the pass uses.
func (r *referenceBench) products(b *testing.B) (took spent) {
	o := r.options
	m := onnx.NewModel("products", onnx.Opset{Version: 17})
	g := m.Graph
	g.AddInput("input_ids", onnx.Int64, onnx.Free("B"), onnx.Free("T"))
	// The products neither grow nor vanish on their way through the layers: processors take many
	// times as long for numbers next to zero.
	rng := rand.New(rand.NewPCG(5, 6))
	weight := func(rows, cols int) string {
		name := fmt.Sprint("w", len(g.Initializers))
		w := make([]float32, rows*cols)
		for i := range w {
			w[i] = float32(rng.NormFloat64() / math.Sqrt(float64(rows)))
		}
		return g.AddInitializer(onnx.Float32Tensor(name, w, int64(rows), int64(cols)))
	}
	g.Add("Gather", []string{weight(26, o.D), "input_ids"}, []string{"x0"})
	x := "x0"
	times := func(rows, cols int) {
		y := fmt.Sprint("x", len(g.Initializers))
		g.Add("MatMul", []string{x, weight(rows, cols)}, []string{y})
		x = y
	}
	for range o.Layers {
		times(o.D, o.D)
		times(o.D, o.D)
		times(o.D, o.FF)
		times(o.FF, o.D)
	}
	g.AddOutput(x, onnx.Float32, onnx.Free("B"), onnx.Free("T"), onnx.Fixed(o.D))
	backbone := r.open(b, m, ort.DefaultOptions())
	defer backbone.Close()
	ids := make([]int32, pipeline.DefaultPrecomputeConfig().BatchTokens)
	for range 2 { // the first is a warm-up
		since := clock()
		var wg sync.WaitGroup
		for range backbone.Traits().Lanes {
			wg.Go(func() {
				for range productBatches {
					if err := backbone.Run(b.Context(), []*models.Run{{IDs: ids, From: len(ids)}}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took = since()
	}
	return took
}

// productBatches is how many batches of products a lane is timed on.
const productBatches = 8

// productAdds are the multiply-adds of products.
func (r *referenceBench) productAdds() float64 {
	o, cfg := r.options, pipeline.DefaultPrecomputeConfig()
	lanes := min(ort.DefaultOptions().Threads, 4)
	return float64(lanes*productBatches*cfg.BatchTokens) * float64(o.Layers*(2*o.D*o.D+2*o.D*o.FF))
}

// multiplyAdds are those that no pass can do without: every distinct token through the layers once,
// attention to what precedes it, and the head for tokens that are scored.
func (r *referenceBench) multiplyAdds(pairs []conversation, system int) float64 {
	o := r.options
	kv := o.D / o.Heads * o.KVHeads
	token := float64(o.Layers * (2*o.D*o.D + 2*o.D*kv + 3*o.D*o.FF))
	attention := float64(2 * o.D * o.Layers)
	head := float64(o.V * o.D)
	sum := 0.0
	stretch := func(from, to int) {
		n := float64(to - from)
		sum += n*token + attention*n*float64(from+to+1)/2
	}
	stretch(0, system)
	for _, p := range pairs {
		stretch(system, len(p.Prompt))
		for _, c := range []int{len(p.Chosen), len(p.Rejected)} {
			stretch(len(p.Prompt), len(p.Prompt)+c)
			sum += float64(c+1) * head
		}
	}
	return sum
}
