package models

import (
	"context"
	"fmt"
	"strconv"
)

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
// Backward per micro-batch, which add the gradients up in the order of the calls, then Finish, clipping
// and the optimizer on Params. Forward alone evaluates. A head is not safe for concurrent use.
//
// A head is what it adds inside the frozen head: [LoRA] fills Addition.U and B, [Bias]
// fills Addition.C, and [Adapter], which changes the hidden state, has the frozen matrix itself
// in Addition.B. [Kinds] lists them.
type Head interface {
	// Kind is the name of the head's kind, such as "lora".
	Kind() string
	// Shape returns the size [V,D] of the frozen head it is for, 0 for one that may be any.
	Shape() (v, d int)
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
	// Finish completes every Grad after the last Backward of an optimizer batch.
	Finish(ctx context.Context, e Engine) error
}

// Fits refuses a head that is for a frozen head of another size than v's.
func Fits(h Head, v *Vocabulary) error {
	wantV, wantD := h.Shape()
	if wantV != 0 && wantV != v.V || wantD != 0 && wantD != v.D {
		size := func(n int) string {
			if n == 0 {
				return "any"
			}
			return strconv.Itoa(n)
		}
		return fmt.Errorf("models: the adapter is for a [%s,%s] head, want [%d,%d]", size(wantV), size(wantD), v.V, v.D)
	}
	return nil
}

// Score loads rows into e and scores them with the policy h.
func Score(ctx context.Context, e Engine, h Head, rows Rows, out *Tokens) error {
	if err := e.Load(ctx, rows); err != nil {
		return err
	}
	return h.Forward(ctx, e, out)
}
