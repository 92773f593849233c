package models

import "context"

// A Param is one trained tensor with the gradient of the current optimizer batch. Both slices
// belong to the head and are written in place.
type Param struct {
	// Name is the tensor's name in a checkpoint.
	Name string
	// Shape is row-major.
	Shape []int
	// Value and Grad are float32 of that shape.
	Value, Grad []float32
}

// Head is a trainable policy head on top of a frozen LM head. A step is ZeroGrad, then Forward and
// Backward per micro-batch, which add the gradients up in the order of the calls, then clipping
// and the optimizer on Params. Forward alone evaluates. A head is not safe for concurrent use.
//
// A head is what it adds inside the frozen head: [LoRA] fills Addition.U and B, a
// bias would fill Addition.C. A head that changes the hidden states before the
// frozen head gives the engine rows of its own, and needs ∂L/∂Hidden as one more
// field of [AdditionGrad].
type Head interface {
	// Kind is the name of the head's kind, such as "lora".
	Kind() string
	// Params returns the trained tensors in a fixed order.
	Params() []Param
	// ZeroGrad sets all gradients to 0, for the next optimizer batch.
	ZeroGrad()
	// Forward scores the rows loaded into e with the policy. Logps are rounded to float32, as the
	// reference's are in its cache: where the engine gives the same bits for both, the log-ratios
	// of a fresh head are exactly 0.
	Forward(ctx context.Context, e Engine, out *Tokens) error
	// Backward takes coef[i] = ∂L/∂Logps[i] of the last Forward, [N], and adds
	// ∂L/∂Value to every Grad. After an error the gradients are of no use.
	Backward(ctx context.Context, e Engine, coef []float64) error
}

// Score loads rows into e and scores them with the policy h.
func Score(ctx context.Context, e Engine, h Head, rows Rows, out *Tokens) error {
	if err := e.Load(ctx, rows); err != nil {
		return err
	}
	return h.Forward(ctx, e, out)
}
