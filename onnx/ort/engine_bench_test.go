//go:build cgo && unix

package ort

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// benchVariable chooses the sizes of BenchmarkEngine: smollm2-135m or v128k (a head of
// 1 GiB), or else a small one that shows that it runs.
const benchVariable = "DPO_PIPE_BENCH_MODEL"

// benchHead is a frozen head with the sizes of what is trained on it.
type benchHead struct {
	n, d, v       int
	weightIsInput bool
	ranks         []int
	learnt        bool // gradients next to zero, as of pairs that are learnt
}

func benchHeads() (model string, heads []benchHead) {
	switch model := os.Getenv(benchVariable); model {
	case "smollm2-135m":
		heads = []benchHead{
			{n: 256, d: 576, v: 49152, ranks: []int{16, 4, 64, 128}},
			{n: 256, d: 576, v: 49152, weightIsInput: true, ranks: []int{16}},
			{n: 256, d: 576, v: 49152, weightIsInput: true, ranks: []int{16}, learnt: true},
		}
		for _, v := range []int{512, 4096, 131072} {
			heads = append(heads, benchHead{n: 256, d: 576, v: v, ranks: []int{16}})
		}
		return model, heads
	case "v128k":
		for _, n := range []int{64, 256} {
			heads = append(heads, benchHead{n: n, d: 2048, v: 128256, ranks: []int{16}, weightIsInput: true})
		}
		return model, heads
	}
	return "tiny", []benchHead{{n: 64, d: 64, v: 512, ranks: []int{16}}}
}

// BenchmarkEngine times the head in units of the bare [N,D]·[D,V] product that every
// engine needs, taken in turn with it: load-x is the engine's product with the frozen
// matrix, forward-x and backward-x are what a LoRA head does on it, step-x is all
// three, and head-x what each further head on the same rows adds. optimizer-x is what an
// optimizer step takes beside its micro-batches: clearing and clipping the gradients and AdamW. Each is
// the median of its rounds; names with cpu- are the same by processor time, which counts where
// other programs take the cores.
func BenchmarkEngine(b *testing.B) {
	model, heads := benchHeads()
	for _, f := range heads {
		v := headCase{d: f.d, v: f.v, scale: 1}.vocabulary(rand.New(rand.NewPCG(1, 2)))
		e, err := openRuntime(b).newEngine(v, DefaultOptions(), f.weightIsInput)
		if err != nil {
			b.Fatal(err)
		}
		product := openProduct(b, v, f)
		for _, r := range f.ranks {
			name := fmt.Sprintf("model=%s/N=%d/D=%d/V=%d/R=%d/input=%t/learnt=%t", model, f.n, f.d, f.v, r, f.weightIsInput, f.learnt)
			b.Run(name, func(b *testing.B) {
				benchmarkHead(b, e, product, headCase{n: f.n, d: f.d, v: f.v, r: r}, f.learnt)
			})
		}
		product.close()
		e.Close()
	}
}

func benchmarkHead(b *testing.B, e *engine, product *bareProduct, h headCase, learnt bool) {
	rng := rand.New(rand.NewPCG(3, 4))
	rows, _ := h.rows(rng)
	coef := make([]float64, h.n)
	for i := range coef {
		coef[i] = rng.NormFloat64()
		if learnt {
			coef[i] *= 1e-36
		}
	}
	head := models.NewLoRA(h.d, h.v, h.r, 2*float64(h.r), 5)
	copy(head.B, normal(rng, len(head.B), 0.1))
	adam := models.NewAdamW(head.Params())
	var out models.Tokens
	ctx := b.Context()
	ops := [...]func() error{
		func() error { return product.run(b, rows) },
		func() error { return e.Load(ctx, rows) },
		func() error { return head.Forward(ctx, e, &out) },
		func() error { return head.Backward(ctx, e, coef) },
		func() error {
			_, err := models.ClipGradNorm(head.Params(), 1)
			adam.Step(1e-6)
			head.ZeroGrad()
			return err
		},
	}
	var rounds []benchRound
	round := func() {
		var took benchRound
		// The product comes first in one round and last in the next, as what runs right behind another product is slower.
		for k := range ops {
			i := (k + len(rounds)%2) % len(ops)
			start, before := time.Now(), cpuSeconds()
			if err := ops[i](); err != nil {
				b.Fatal(err)
			}
			took[i] = benchTime{time.Since(start).Seconds(), cpuSeconds() - before}
		}
		rounds = append(rounds, took)
	}
	round() // a warm-up
	rounds = rounds[:0]
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	reportRounds(b, h, rounds)
}

// benchRound are the times of product, load, forward, backward and optimizer.
type benchRound [5]benchTime

// benchTime is seconds by the clock and of the processors.
type benchTime struct{ wall, cpu float64 }

// cpuSeconds is the processor time of this process so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it fails for no arguments but wrong ones
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func reportRounds(b *testing.B, h headCase, rounds []benchRound) {
	median := func(of func(benchRound) float64) float64 {
		all := make([]float64, len(rounds))
		for i, r := range rounds {
			all[i] = of(r)
		}
		slices.Sort(all)
		return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	}
	sum := func(r benchRound, ops ...int) (t benchTime) {
		for _, i := range ops {
			t.wall += r[i].wall
			t.cpu += r[i].cpu
		}
		return t
	}
	for unit, ops := range map[string][]int{
		"load-x": {1}, "forward-x": {2}, "backward-x": {3}, "step-x": {1, 2, 3}, "head-x": {2, 3}, "optimizer-x": {4},
	} {
		b.ReportMetric(median(func(r benchRound) float64 { return sum(r, ops...).wall / r[0].wall }), unit)
		b.ReportMetric(median(func(r benchRound) float64 { return sum(r, ops...).cpu / r[0].cpu }), "cpu-"+unit)
	}
	b.ReportMetric(float64(h.n)/median(func(r benchRound) float64 { return sum(r, 1, 2, 3).wall }), "rows/s")
	flop := 2 * float64(h.n) * float64(h.d) * float64(h.v)
	b.ReportMetric(1e-9*flop/median(func(r benchRound) float64 { return r[0].wall }), "product-GFLOP/s")
}

// bareProduct is one Gemm in ONNX Runtime and the memory of its result.
type bareProduct struct {
	session *session
	vocab   *models.Vocabulary
	input   bool // of the weights
	z       []float32
}

func openProduct(b *testing.B, v *models.Vocabulary, f benchHead) *bareProduct {
	m := onnx.NewModel("product", onnx.Opset{Version: engineOpset})
	m.Graph.AddInput(inHidden, onnx.Float32, onnx.Free("N"), onnx.Fixed(v.D))
	inputs := []string{inHidden}
	if f.weightIsInput {
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
	return &bareProduct{s, v, f.weightIsInput, make([]float32, f.n*v.V)}
}

func (p *bareProduct) run(b *testing.B, rows models.Rows) error {
	var vs values
	defer vs.destroy()
	in := []ortgo.Value{vs.float32s(rows.Hidden, int64(rows.N), int64(p.vocab.D))}
	if p.input {
		in = append(in, vs.float32s(p.vocab.Weight, int64(p.vocab.V), int64(p.vocab.D)))
	}
	return p.session.run(b.Context(), in, []ortgo.Value{vs.float32s(p.z, int64(rows.N), int64(p.vocab.V))})
}

func (p *bareProduct) close() { _ = p.session.close() }
