//go:build cgo

package ort

import (
	"context"
	"errors"
	"math"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// maxInitializerBytes is the size from which W is an input of the graph over the
// vocabulary's own memory: a protobuf file ends at 2 GiB, and a second copy of a
// matrix this large hurts more than the packed form helps. Packed, a forward pass at
// D 576, V 49152, R 16 took 35 ms of processor time for 32 rows, where the input took
// 66, and 240 for 256, where it took 250.
const maxInitializerBytes = 3 << 29 // 1.5 GiB

// engine is the models.Engine that multiplies with ONNX Runtime.
//
// A bias C of the addition is one more column of B beside a column of ones in U,
// so that everything below knows a low-rank addition only.
type engine struct {
	vocab             *models.Vocabulary
	weightIsInput     bool
	forward, backward *session
	project, gather   *session // opened at the first use

	opt     Options
	runtime *Runtime
	rows    models.Rows

	last forwardState
	// scratch memory, reused from call to call
	targets, top                              []int64
	joinedU, joinedB, scaled, grad            []float32
	picked, topProb, mean, sumSq, shift, base []float32
}

// forwardState is what Backward needs of the last Forward.
type forwardState struct {
	valid bool
	n     int
	add   models.Addition
	// u is [N,rank] and b [V,rank]: the addition with its bias as the last column.
	rank int
	u, b []float32
	// probs is [N,V], mix [N,rank], slope [N] or nil.
	probs, mix, slope []float32
}

var _ models.Engine = (*engine)(nil)

// NewEngine returns the engine "ort" over v, which it keeps and does not change.
// Beside v's weights it holds a copy in the form ONNX Runtime multiplies fastest,
// unless they are larger than 1.5 GiB.
func (r *Runtime) NewEngine(v *models.Vocabulary, opt Options) (models.Engine, error) {
	return r.newEngine(v, opt, 4*v.V*v.D > maxInitializerBytes)
}

func (r *Runtime) newEngine(v *models.Vocabulary, opt Options, weightIsInput bool) (*engine, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	e := &engine{vocab: v, weightIsInput: weightIsInput, runtime: r, opt: opt}
	inputs := []string{inHidden, inU, inB, inTargets}
	if weightIsInput {
		inputs = append(inputs, inWeight)
	}
	var err error
	e.forward, err = r.newSession(forwardGraph(v, weightIsInput), inputs, forwardOutputs(v), opt)
	if err != nil {
		return nil, err
	}
	e.backward, err = r.newSession(backwardGraph(v), []string{inScaled, outProbs}, []string{outGrad}, opt)
	if err != nil {
		e.forward.close()
		return nil, err
	}
	return e, nil
}

// Name returns "ort".
func (e *engine) Name() string { return "ort" }

// Vocabulary returns the frozen head.
func (e *engine) Vocabulary() *models.Vocabulary { return e.vocab }

// Close frees the graphs.
func (e *engine) Close() error {
	e.last, e.rows = forwardState{}, models.Rows{}
	var errs []error
	for _, s := range []*session{e.forward, e.backward, e.project, e.gather} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// Rows returns the loaded micro-batch.
func (e *engine) Rows() models.Rows { return e.rows }

// Load takes up a micro-batch; see models.Engine.
func (e *engine) Load(_ context.Context, rows models.Rows) error {
	e.last.valid, e.rows = false, models.Rows{}
	if err := models.CheckRows(e.vocab, rows); err != nil {
		return err
	}
	e.rows = rows
	return nil
}

// Forward scores the loaded rows; see models.Engine.
func (e *engine) Forward(ctx context.Context, add models.Addition, out *models.Tokens) error {
	e.last.valid = false
	rows := e.rows
	models.CheckAddition(e.vocab, rows.N, add)
	e.join(rows.N, add)
	e.targets = grow(e.targets, rows.N)
	for i, t := range rows.Targets {
		e.targets[i] = int64(t)
	}
	if rows.N > 0 {
		if err := e.runForward(ctx, rows); err != nil {
			return err
		}
	}
	e.fill(rows, out)
	e.last.valid = true
	return nil
}

// lowRank is the rank of the addition without its bias.
func (s *forwardState) lowRank() int {
	if s.add.B == nil {
		return 0
	}
	return s.add.R
}

// join sets u and b of the forward state: add's own memory, or with a bias a copy
// that has it as the last column.
func (e *engine) join(n int, add models.Addition) {
	s := &e.last
	s.add, s.n, s.u, s.b = add, n, add.U, add.B
	r := s.lowRank()
	s.rank = r
	if add.C == nil {
		return
	}
	s.rank++
	e.joinedU, e.joinedB = grow(e.joinedU, n*s.rank), grow(e.joinedB, e.vocab.V*s.rank)
	for i := range n {
		copy(e.joinedU[i*s.rank:], s.u[i*r:(i+1)*r])
		e.joinedU[i*s.rank+r] = 1
	}
	for v := range e.vocab.V {
		copy(e.joinedB[v*s.rank:], s.b[v*r:(v+1)*r])
		e.joinedB[v*s.rank+r] = add.C[v]
	}
	s.u, s.b = e.joinedU, e.joinedB
}

// runForward runs the forward graph into the engine's memory.
func (e *engine) runForward(ctx context.Context, rows models.Rows) error {
	s, v, n := &e.last, e.vocab, int64(rows.N)
	s.probs, s.mix = grow(s.probs, rows.N*v.V), grow(s.mix, rows.N*s.rank)
	e.top, e.picked = grow(e.top, rows.N), grow(e.picked, 2*rows.N)
	e.topProb, e.mean, e.sumSq = grow(e.topProb, rows.N), grow(e.mean, rows.N), grow(e.sumSq, rows.N)
	var vs values
	defer vs.destroy()
	inputs := []ortgo.Value{
		vs.float32s(rows.Hidden, n, int64(v.D)),
		vs.float32s(s.u, n, int64(s.rank)),
		vs.float32s(s.b, int64(v.V), int64(s.rank)),
		vs.tensor(onnx.Int64, bytesOf(e.targets), n, 1),
	}
	if e.weightIsInput {
		inputs = append(inputs, vs.float32s(v.Weight, int64(v.V), int64(v.D)))
	}
	outputs := []ortgo.Value{
		vs.float32s(s.probs, n, int64(v.V)),
		vs.float32s(s.mix, n, int64(s.rank)),
		vs.tensor(onnx.Int64, bytesOf(e.top), n, 1),
		vs.float32s(e.picked, n, 2),
		vs.float32s(e.topProb, n, 1),
		vs.float32s(e.mean, n, 1),
		vs.float32s(e.sumSq, n, 1),
	}
	if v.Softcap > 0 {
		s.slope, e.shift, e.base = grow(s.slope, rows.N), grow(e.shift, rows.N), grow(e.base, rows.N)
		outputs = append(outputs, vs.float32s(s.slope, n, 1), vs.float32s(e.shift, n, 1), vs.float32s(e.base, n, 1))
	}
	if vs.err != nil {
		return vs.err
	}
	return e.forward.run(ctx, inputs, outputs)
}

// fill turns the graph's outputs into results, in float64.
//
// With z_top and π_top of the most probable token, lse = z_top - log π_top. The
// entropy is lse - Σ π z. For the KL to the reference, whose normaliser is lse0,
//
//	lse - lse0 = (z_y - z0_y) - (log π_y - log π_ref,y)
//	KL = Σ_v π (z - z0) - (lse - lse0)
//
// where without a softcap z - z0 = Scale · B u.
func (e *engine) fill(rows models.Rows, out *models.Tokens) {
	out.Resize(rows.N, rows.RefLogps != nil)
	for i := range rows.N {
		lse := float64(e.picked[2*i+1]) - math.Log(float64(e.topProb[i]))
		out.Logps[i] = float64(e.picked[2*i]) - lse
		out.Entropy[i] = lse - float64(e.mean[i])
		out.LogSumSq[i] = math.Log(float64(e.sumSq[i]))
		out.Top[i] = int32(e.top[i])
		if rows.RefLogps != nil {
			mean, target := e.moved(i, int(rows.Targets[i]))
			out.KL[i] = mean - target + out.Logps[i] - float64(rows.RefLogps[i])
		}
	}
}

// moved returns Σ_v π (z - z0) of row i and z - z0 of its target.
func (e *engine) moved(i, target int) (mean, at float64) {
	if e.vocab.Softcap > 0 {
		return float64(e.shift[i]), float64(e.picked[2*i]) - float64(e.base[i])
	}
	s := &e.last
	u, mix, b := s.u[i*s.rank:(i+1)*s.rank], s.mix[i*s.rank:], s.b[target*s.rank:]
	for k, x := range u {
		mean += float64(x) * float64(mix[k])
		at += float64(x) * float64(b[k])
	}
	scale := float64(e.vocab.Scale)
	return scale * mean, scale * at
}
