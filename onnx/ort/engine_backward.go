//go:build cgo

package ort

import (
	"context"
	"errors"

	"github.com/dpo-pipe/dpo-pipe/models"
	ortgo "github.com/yalue/onnxruntime_go"
)

// Backward accumulates the gradient of L; see models.Engine. With π' the
// probabilities times the softcap's slope f (1 without one) and c = coef,
//
//	∂L/∂U_i = Scale · c_i (f_y B_y - Σ_v π'_iv B_v)
//	∂L/∂B_v = Scale · Σ_i c_i ([v = y_i] f_y - π'_iv) U_i
//
// The sums over the vocabulary are products of ONNX Runtime; the one-hot parts
// are added here.
func (e *engine) Backward(ctx context.Context, coef []float64, grad models.AdditionGrad) error {
	s := &e.last
	if !s.valid {
		return errors.New("ort: Backward without a Forward that succeeded")
	}
	models.CheckBackward(e.vocab, s.n, s.add, coef, grad)
	if s.n == 0 {
		return nil
	}
	if grad.U != nil {
		e.gradU(coef, grad.U)
	}
	if grad.B == nil && grad.C == nil {
		return nil
	}
	cols := e.scale(coef, grad)
	if err := e.runBackward(ctx, cols); err != nil {
		return err
	}
	e.addOneHot(coef, cols)
	e.scatter(grad)
	return nil
}

// gradU writes ∂L/∂U, [N,R].
func (e *engine) gradU(coef []float64, dst []float32) {
	s, r := &e.last, e.last.lowRank()
	for i := range s.n {
		c, slope := e.coefficient(i, coef)
		b, mix := s.b[int(e.targets[i])*s.rank:], s.mix[i*s.rank:]
		for k := range r {
			dst[i*r+k] = float32(c * (slope*float64(b[k]) - float64(mix[k])))
		}
	}
}

// coefficient returns Scale·c_i and the softcap's slope at the target of row i.
func (e *engine) coefficient(i int, coef []float64) (c, slope float64) {
	slope = 1
	if e.vocab.Softcap > 0 {
		slope = float64(e.last.slope[i])
	}
	return float64(e.vocab.Scale) * coef[i], slope
}

// scale sets e.scaled, [N,cols]: the rows of U times Scale·c, and where ∂L/∂C is
// wanted Scale·c itself as the last column. It returns cols.
func (e *engine) scale(coef []float64, grad models.AdditionGrad) int {
	s, r := &e.last, 0
	if grad.B != nil {
		r = s.lowRank()
	}
	cols := r
	if grad.C != nil {
		cols++
	}
	e.scaled = grow(e.scaled, s.n*cols)
	for i := range s.n {
		c, _ := e.coefficient(i, coef)
		row := e.scaled[i*cols : (i+1)*cols]
		for k := range r {
			row[k] = float32(c * float64(s.u[i*s.rank+k]))
		}
		if grad.C != nil {
			row[r] = float32(c)
		}
	}
	return cols
}

// addOneHot turns e.grad, [cols,V], from the sum over the probabilities into the
// gradient: Σ_i c_i ([v = y_i] f_y - π'_iv) U_i.
func (e *engine) addOneHot(coef []float64, cols int) {
	for i := range e.grad {
		e.grad[i] = -e.grad[i]
	}
	for i := range e.last.n {
		_, slope := e.coefficient(i, coef)
		for k := range cols {
			e.grad[k*e.vocab.V+int(e.targets[i])] += float32(slope * float64(e.scaled[i*cols+k]))
		}
	}
}

// scatter adds e.grad, [cols,V], to the gradients.
func (e *engine) scatter(grad models.AdditionGrad) {
	vocab, r := e.vocab.V, 0
	if grad.B != nil {
		r = e.last.lowRank()
	}
	for k := range r {
		for v, x := range e.grad[k*vocab : (k+1)*vocab] {
			grad.B[v*r+k] += x
		}
	}
	if grad.C != nil {
		for v, x := range e.grad[r*vocab:] {
			grad.C[v] += x
		}
	}
}

// runBackward sets e.grad to scaledᵀ · probs, [cols,V].
func (e *engine) runBackward(ctx context.Context, cols int) error {
	s := &e.last
	e.grad = grow(e.grad, cols*e.vocab.V)
	var vs values
	defer vs.destroy()
	inputs := []ortgo.Value{
		vs.float32s(e.scaled, int64(s.n), int64(cols)),
		vs.float32s(s.probs, int64(s.n), int64(e.vocab.V)),
	}
	outputs := []ortgo.Value{vs.float32s(e.grad, int64(cols), int64(e.vocab.V))}
	if vs.err != nil {
		return vs.err
	}
	return e.backward.run(ctx, inputs, outputs)
}
