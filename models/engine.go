package models

import "context"

// Vocabulary is the frozen LM head: raw logits of a hidden state h are
//
//	z = Scale · (W h + Bias), then Softcap · tanh(z / Softcap) where Softcap > 0.
type Vocabulary struct {
	// V is the number of tokens, D the width of a hidden state.
	V, D int
	// Weight is W, float32, row-major [V,D].
	Weight []float32
	// Bias is [V], or nil.
	Bias []float32
	// Scale multiplies the product; 1 for most models.
	Scale float32
	// Softcap bounds the logits; 0 means none.
	Softcap float32
}

// Rows are the tokens of one micro-batch, a ragged concatenation of completions:
// row i holds the hidden state from which token Targets[i] is predicted.
type Rows struct {
	// N is the number of rows.
	N int
	// Hidden is float32, row-major [N,D].
	Hidden []float32
	// Targets holds the N token ids to be predicted.
	Targets []int32
	// RefLogps are the reference's log-probs of the targets [N], nats; nil
	// while the reference itself is being scored. KL is computed only with them.
	RefLogps []float32
}

// Addition is what a head adds inside the frozen LM head:
//
//	z = Scale · (W h + Bias + B u + C)
//
// before the softcap. U and B are nil for a head without a low-rank part and C is nil for
// one without a bias; with all nil the frozen head itself is scored.
type Addition struct {
	// R is the rank of the low-rank part.
	R int
	// U is [N,R]: the scaled projections (α/r)·A h of the rows.
	U []float32
	// B is row-major [V,R].
	B []float32
	// C is [V].
	C []float32
}

// AdditionGrad receives ∂L/∂U [N,R] (overwritten) and ∂L/∂B [V,R], ∂L/∂C [V]
// (added to). A nil slice is not computed.
type AdditionGrad struct {
	U, B, C []float32
}

// Tokens are per-row results of a forward pass, each [N].
type Tokens struct {
	// Logps are log π(target), nats.
	Logps []float64
	// Entropy is -Σ_v π log π, nats.
	Entropy []float64
	// KL is Σ_v π (log π - log π_ref), nats; empty unless Rows.RefLogps is set. π_ref is the frozen
	// head's softmax, whose normaliser follows from the target's logit and reference log-prob.
	KL []float64
	// LogSumSq is log Σ_v π², which WPO's pair weights need.
	LogSumSq []float64
	// Top is the most probable token; the lowest id wins a tie.
	Top []int32
}

// Engine does the vocabulary-sized arithmetic of heads and nothing else. It is
// not safe for concurrent use. Implementations: gonum (this package) and
// ONNX Runtime (onnx/ort); both pass the same conformance test.
//
// The product of a micro-batch with the frozen matrix is the same for every head: Load
// takes it once, and each head that is trained on these rows goes forward and backward on it.
type Engine interface {
	// Name is "gonum" or "ort".
	Name() string
	// Vocabulary returns the frozen head the engine was opened with.
	Vocabulary() *Vocabulary
	// Load takes up a micro-batch and multiplies it with the frozen matrix. rows must stay
	// unchanged until the next Load. A target outside [0,V) is a [*TargetError], found before any
	// work is done ([CheckRows]). No rows is a micro-batch too.
	Load(ctx context.Context, rows Rows) error
	// Rows returns the micro-batch that was loaded last; none after a Load that failed.
	Rows() Rows
	// Forward scores the loaded rows under the frozen head plus add and fills out, whose
	// slices it grows to N. It keeps what Backward needs until the next call; add
	// must stay unchanged until then. A row with a logit that is not a number has NaN as its
	// Logps, and other rows don't notice.
	Forward(ctx context.Context, add Addition, out *Tokens) error
	// Backward takes coef[i] = ∂L/∂Logps[i] of the last Forward, [N], and
	// accumulates the gradient of L with respect to the addition. It may be called again, with
	// other coefficients. After an error, which is the cause of ctx's end or the
	// engine's own, the gradients are of no use.
	Backward(ctx context.Context, coef []float64, grad AdditionGrad) error
	// Project writes W xᵀ to dst [V,R], for x [R,D]: what vectors of the hidden space do to
	// the logits.
	Project(ctx context.Context, x []float32, r int, dst []float32) error
	// Gather writes gᵀ W to dst [R,D], for g [V,R]: the transpose of Project.
	Gather(ctx context.Context, g []float32, r int, dst []float32) error
	// Close frees what the engine holds. The engine can't be used afterwards.
	Close() error
}

// Forward loads rows and scores them under the frozen head plus add.
func Forward(ctx context.Context, e Engine, rows Rows, add Addition, out *Tokens) error {
	if err := e.Load(ctx, rows); err != nil {
		return err
	}
	return e.Forward(ctx, add, out)
}
