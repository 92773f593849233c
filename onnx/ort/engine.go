//go:build cgo

package ort

import (
	"context"
	"errors"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// maxInitializerBytes is the size from which W is an input of the graph over the
// vocabulary's own memory. As an initializer ONNX Runtime packs it, but opening then takes
// four times W and training twice: at D 2048, V 128256 (1 GiB) 4.0 GiB and 3.2. The
// input took 1.05 times as long as the packed form for 256 rows, what a
// micro-batch has there, and 1.2 times for 64. At D 576, V 49152 it took 66 ms of processor
// time where packed took 35 for 32 rows, and 250 where packed took 240 for 256.
const maxInitializerBytes = 512 << 20

// engine is the models.Engine that multiplies with ONNX Runtime.
//
// ONNX Runtime takes the product with the frozen matrix, which is most of the work. What a
// head does to those logits is memory traffic rather than arithmetic: the kernel does all
// of it to one tile of tokens after another, while that is in the processor's cache.
type engine struct {
	vocab           *models.Vocabulary
	runtime         *Runtime
	opt             Options
	weightIsInput   bool
	frozen          *session
	project, gather *session // opened at the first use
	cols            int      // of a tile

	rows models.Rows
	base []float32 // [N,V] Scale · (W h + Bias)
	last forwardState
	// scratch memory, reused from call to call
	partial []float32   // [tiles,N,R] shares of ∂L/∂U
	scaled  []float64   // [N] Scale · coef
	scratch [][]float32 // of each worker
}

// forwardState is what Backward needs of the last Forward.
type forwardState struct {
	valid bool
	add   models.Addition
	sums  []models.TileSums // [N,tiles]
	shift []float32         // [N] greatest logit
	sum   []float64         // [N] Σ exp(z - shift)
	// logit and base are of the target, [N], with the addition and without.
	logit, base []float32
}

var _ models.Engine = (*engine)(nil)

// NewEngine returns the engine "ort" over v, which it keeps and does not change.
// Beside v's weights it holds a copy in the form ONNX Runtime multiplies fastest,
// unless they are larger than 512 MiB.
func (r *Runtime) NewEngine(v *models.Vocabulary, opt Options) (models.Engine, error) {
	return r.newEngine(v, opt, 4*v.V*v.D > maxInitializerBytes)
}

func (r *Runtime) newEngine(v *models.Vocabulary, opt Options, weightIsInput bool) (*engine, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	e := &engine{vocab: v, runtime: r, opt: opt, weightIsInput: weightIsInput, cols: tileCols(v.V)}
	inputs := []string{inHidden}
	if weightIsInput {
		inputs = append(inputs, inWeight)
	}
	var err error
	e.frozen, err = r.newSession(frozenGraph(v, weightIsInput), inputs, []string{outLogits}, opt)
	return e, err
}

// tileCols is the number of tokens of a tile of a vocabulary of v, the last one excepted: 512
// keep what the kernel needs in a core's own cache. A smaller vocabulary is cut in four at
// most, for other cores: on 1,024 tokens tiles of 64 take 1.30 times the instructions of 256.
func tileCols(v int) int {
	const most, least = maxCols, 64
	return min(max((v/4+least-1)/least*least, least), most)
}

// Name returns "ort".
func (e *engine) Name() string { return "ort" }

// Vocabulary returns the frozen head.
func (e *engine) Vocabulary() *models.Vocabulary { return e.vocab }

// Rows returns the loaded micro-batch.
func (e *engine) Rows() models.Rows { return e.rows }

// Close frees the graphs.
func (e *engine) Close() error {
	e.last, e.rows, e.base = forwardState{}, models.Rows{}, nil
	var errs []error
	for _, s := range []*session{e.frozen, e.project, e.gather} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// Load multiplies rows with the frozen matrix; see models.Engine.
func (e *engine) Load(ctx context.Context, rows models.Rows) error {
	e.last.valid, e.rows = false, models.Rows{}
	v := e.vocab
	if err := models.CheckRows(v, rows); err != nil {
		return err
	}
	e.base = grow(e.base, rows.N*v.V)
	if rows.N > 0 {
		if err := e.multiply(ctx, rows); err != nil {
			return err
		}
	}
	e.rows = rows
	return nil
}

func (e *engine) multiply(ctx context.Context, rows models.Rows) error {
	v := e.vocab
	var vs values
	defer vs.destroy()
	inputs := []ortgo.Value{vs.float32s(rows.Hidden, int64(rows.N), int64(v.D))}
	if e.weightIsInput {
		inputs = append(inputs, vs.float32s(v.Weight, int64(v.V), int64(v.D)))
	}
	outputs := []ortgo.Value{vs.float32s(e.base, int64(rows.N), int64(v.V))}
	if vs.err != nil {
		return vs.err
	}
	return e.frozen.run(ctx, inputs, outputs)
}

// Forward scores the loaded rows; see models.Engine.
func (e *engine) Forward(ctx context.Context, add models.Addition, out *models.Tokens) error {
	s, n := &e.last, e.rows.N
	s.valid = false
	models.CheckAddition(e.vocab, n, add)
	s.add = add
	s.sums = grow(s.sums, n*e.tiles())
	s.shift, s.sum = grow(s.shift, n), grow(s.sum, n)
	s.logit, s.base = grow(s.logit, n), grow(s.base, n)
	out.Resize(n, e.rows.RefLogps != nil)
	if n == 0 {
		s.valid = true
		return context.Cause(ctx)
	}
	if err := e.forwardTiles(ctx); err != nil {
		return err
	}
	tiles := e.tiles()
	err := models.Each(ctx, n, func(_, i int) {
		all := models.MergeTiles(s.sums[i*tiles : (i+1)*tiles])
		s.shift[i], s.sum[i] = all.Max, all.Sum
		out.Put(i, &e.rows, all, s.logit[i], s.base[i])
	})
	s.valid = err == nil
	return err
}

// Backward accumulates the gradient of L; see models.Engine.
func (e *engine) Backward(ctx context.Context, coef []float64, grad models.AdditionGrad) error {
	s, n := &e.last, e.rows.N
	if !s.valid {
		return errors.New("ort: Backward without a Forward that succeeded")
	}
	models.CheckBackward(e.vocab, n, s.add, coef, grad)
	if n == 0 {
		return context.Cause(ctx)
	}
	e.scaled = grow(e.scaled, n)
	for i, c := range coef {
		e.scaled[i] = float64(e.vocab.Scale) * c
	}
	if grad.U != nil {
		e.partial = grow(e.partial, e.tiles()*len(grad.U))
	}
	if err := e.backwardTiles(ctx, grad); err != nil {
		return err
	}
	return models.SumShares(ctx, grad.U, e.partial)
}

// tiles is the number of tiles of a row of logits.
func (e *engine) tiles() int { return (e.vocab.V + e.cols - 1) / e.cols }

// rank is that of the low-rank part, 0 without one.
func rank(add models.Addition) int {
	if add.B == nil {
		return 0
	}
	return add.R
}

// Values of the graph of the frozen head.
const (
	inHidden  = "hidden" // [N,D]
	inWeight  = "weight" // [V,D], an input only where it is not an initializer
	outLogits = "logits" // [N,V], before the softcap

	// engineOpset is the standard operator set of the graphs built here; every
	// supported ONNX Runtime has it.
	engineOpset = 17
)

// frozenGraph builds Scale · (X Wᵀ + Bias).
func frozenGraph(v *models.Vocabulary, weightIsInput bool) *onnx.Model {
	m := onnx.NewModel("frozen_head", onnx.Opset{Version: engineOpset})
	g := m.Graph
	n, d, vocab := onnx.Free("N"), onnx.Fixed(v.D), onnx.Fixed(v.V)
	g.AddInput(inHidden, onnx.Float32, n, d)
	if weightIsInput {
		g.AddInput(inWeight, onnx.Float32, vocab, d)
	} else {
		dims := []int64{int64(v.V), int64(v.D)}
		g.AddInitializer(onnx.NewTensor(inWeight, onnx.Float32, dims, bytesOf(v.Weight)))
	}
	inputs := []string{inHidden, inWeight}
	if v.Bias != nil {
		inputs = append(inputs, g.AddInitializer(onnx.Float32Tensor("bias", v.Bias, int64(v.V))))
	}
	add(g, outLogits, "Gemm", inputs, onnx.Int("transB", 1), onnx.Float("alpha", v.Scale), onnx.Float("beta", v.Scale))
	g.AddOutput(outLogits, onnx.Float32, n, vocab)
	return m
}

// add appends a node with one output.
func add(g *onnx.Graph, output, op string, inputs []string, attrs ...*onnx.Attr) {
	g.Add(op, inputs, []string{output}, attrs...)
}
