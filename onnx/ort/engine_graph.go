//go:build cgo

package ort

import (
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// engineOpset is the standard operator set of the graphs built here; every
// supported ONNX Runtime has it.
const engineOpset = 17

// Values of the forward graph. Every matrix [N,V] but probs stays inside
// ONNX Runtime.
const (
	inHidden  = "hidden"  // [N,D]
	inWeight  = "weight"  // [V,D], an input only where it is not an initializer
	inU       = "u"       // [N,R]
	inB       = "b"       // [V,R]
	inTargets = "targets" // [N,1] int64
	inScaled  = "scaled"  // [N,R], the backward graph's coef∘U

	outProbs   = "probs"    // [N,V], times the softcap's derivative where there is one
	outMix     = "mix"      // [N,R], probs · B
	outTop     = "top"      // [N,1] int64, the most probable token
	outPicked  = "picked"   // [N,2], logits of the target and of the top token
	outTopProb = "top_prob" // [N,1], probability of the top token
	outMean    = "mean"     // [N,1], Σ_v π z
	outSumSq   = "sum_sq"   // [N,1], Σ_v π²
	outSlope   = "slope"    // [N,1], with a softcap: the derivative at the target
	outShift   = "shift"    // [N,1], with a softcap: Σ_v π (z - z0)
	outBase    = "base"     // [N,1], with a softcap: the target's frozen logit z0

	outGrad = "grad" // [R,V], the backward graph's (coef∘U)ᵀ · probs
)

// forwardGraph builds the graph of [engine.Forward]: with the raw logits
//
//	s = Scale · (X Wᵀ + Bias + U Bᵀ), z = s or cap · tanh(s/cap)
//
// it gives π = softmax(z) and what the per-token results are made of. The
// log-normaliser is not an output: it is z_top - log π_top, which is exact to
// rounding because π_top is at least 1/V.
func forwardGraph(v *models.Vocabulary, weightIsInput bool) *onnx.Model {
	m := onnx.NewModel("head_forward", onnx.Opset{Version: engineOpset})
	g := m.Graph
	n, r, d, vocab := onnx.Free("N"), onnx.Free("R"), onnx.Fixed(v.D), onnx.Fixed(v.V)
	g.AddInput(inHidden, onnx.Float32, n, d)
	g.AddInput(inU, onnx.Float32, n, r)
	g.AddInput(inB, onnx.Float32, vocab, r)
	g.AddInput(inTargets, onnx.Int64, n, onnx.Fixed(1))
	if weightIsInput {
		g.AddInput(inWeight, onnx.Float32, vocab, d)
	} else {
		dims := []int64{int64(v.V), int64(v.D)}
		g.AddInitializer(onnx.NewTensor(inWeight, onnx.Float32, dims, bytesOf(v.Weight)))
	}
	addition := []string{inU, inB}
	if v.Bias != nil {
		addition = append(addition, g.AddInitializer(scaledBias(v)))
	}
	add(g, "low_rank", "Gemm", addition, onnx.Int("transB", 1), onnx.Float("alpha", v.Scale))
	add(g, "raw", "Gemm", []string{inHidden, inWeight, "low_rank"}, onnx.Int("transB", 1), onnx.Float("alpha", v.Scale))
	logits, softmax := "raw", outProbs
	if v.Softcap > 0 {
		addSoftcap(g, v)
		logits, softmax = "capped", "softmax"
	}
	add(g, softmax, "Softmax", []string{logits}, onnx.Int("axis", -1))
	addStatistics(g, logits, softmax)
	if v.Softcap > 0 {
		addSoftcapOutputs(g, v, softmax)
	}
	add(g, outMix, "MatMul", []string{outProbs, inB})
	for _, name := range forwardOutputs(v) {
		dt := onnx.Float32
		if name == outTop {
			dt = onnx.Int64
		}
		g.AddOutput(name, dt, n, onnx.Free(name+"_columns"))
	}
	return m
}

// scaledBias is Scale · Bias. Gemm's own factor for it, beta, is left out by ONNX
// Runtime where the product is empty, as that of an addition of rank 0 is.
func scaledBias(v *models.Vocabulary) *onnx.Tensor {
	b := make([]float32, v.V)
	for i, x := range v.Bias {
		b[i] = v.Scale * x
	}
	return onnx.Float32Tensor("bias", b, int64(v.V))
}

// forwardOutputs are the outputs of the forward graph in order.
func forwardOutputs(v *models.Vocabulary) []string {
	names := []string{outProbs, outMix, outTop, outPicked, outTopProb, outMean, outSumSq}
	if v.Softcap > 0 {
		names = append(names, outSlope, outShift, outBase)
	}
	return names
}

// addStatistics adds the per-row results.
func addStatistics(g *onnx.Graph, logits, probs string) {
	add(g, outTop, "ArgMax", []string{logits}, onnx.Int("axis", 1), onnx.Int("keepdims", 1))
	add(g, "target_top", "Concat", []string{inTargets, outTop}, onnx.Int("axis", 1))
	add(g, outPicked, "GatherElements", []string{logits, "target_top"}, onnx.Int("axis", 1))
	add(g, outTopProb, "GatherElements", []string{probs, outTop}, onnx.Int("axis", 1))
	addRowSum(g, outMean, probs, logits)
	addRowSum(g, outSumSq, probs, probs) // a third faster than ReduceSumSquare
}

// addSoftcap adds capped = cap·tanh(raw/cap) and slope = 1 - tanh², its
// derivative, for the logits "raw".
func addSoftcap(g *onnx.Graph, v *models.Vocabulary) {
	g.AddInitializer(onnx.Float32Tensor("cap", []float32{v.Softcap}))
	g.AddInitializer(onnx.Float32Tensor("one", []float32{1}))
	add(g, "bent", "Div", []string{"raw", "cap"})
	add(g, "tanh", "Tanh", []string{"bent"})
	add(g, "capped", "Mul", []string{"tanh", "cap"})
	add(g, "tanh_sq", "Mul", []string{"tanh", "tanh"})
	add(g, "slopes", "Sub", []string{"one", "tanh_sq"})
}

// addSoftcapOutputs adds what only a softcap needs: probs carries the
// derivative, and the KL takes the frozen logits z0 themselves because the
// addition is no longer linear in z.
func addSoftcapOutputs(g *onnx.Graph, v *models.Vocabulary, softmax string) {
	add(g, outProbs, "Mul", []string{softmax, "slopes"})
	add(g, outSlope, "GatherElements", []string{"slopes", inTargets}, onnx.Int("axis", 1))
	frozen := []string{inHidden, inWeight}
	if v.Bias != nil {
		frozen = append(frozen, "bias")
	}
	add(g, "raw0", "Gemm", frozen, onnx.Int("transB", 1), onnx.Float("alpha", v.Scale))
	add(g, "bent0", "Div", []string{"raw0", "cap"})
	add(g, "tanh0", "Tanh", []string{"bent0"})
	add(g, "capped0", "Mul", []string{"tanh0", "cap"})
	add(g, "moved", "Sub", []string{"capped", "capped0"})
	addRowSum(g, outShift, softmax, "moved")
	add(g, outBase, "GatherElements", []string{"capped0", inTargets}, onnx.Int("axis", 1))
}

// addRowSum adds name = Σ_v a·b per row, [N,1].
func addRowSum(g *onnx.Graph, name, a, b string) {
	product := name + "_terms"
	if g.Initializer("columns") == nil {
		g.AddInitializer(onnx.Int64Tensor("columns", []int64{1}, 1))
	}
	add(g, product, "Mul", []string{a, b})
	add(g, name, "ReduceSum", []string{product, "columns"}, onnx.Int("keepdims", 1))
}

// backwardGraph builds (coef∘U)ᵀ · probs, [R,V]: the large matrix is read in the
// order it lies in memory.
func backwardGraph(v *models.Vocabulary) *onnx.Model {
	m := onnx.NewModel("head_backward", onnx.Opset{Version: engineOpset})
	g := m.Graph
	n, r, vocab := onnx.Free("N"), onnx.Free("R"), onnx.Fixed(v.V)
	g.AddInput(inScaled, onnx.Float32, n, r)
	g.AddInput(outProbs, onnx.Float32, n, vocab)
	add(g, outGrad, "Gemm", []string{inScaled, outProbs}, onnx.Int("transA", 1))
	g.AddOutput(outGrad, onnx.Float32, r, vocab)
	return m
}

// add appends a node with one output.
func add(g *onnx.Graph, output, op string, inputs []string, attrs ...*onnx.Attr) {
	g.Add(op, inputs, []string{output}, attrs...)
}
