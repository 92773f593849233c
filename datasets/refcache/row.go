package refcache

import (
	"fmt"
	"math"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// A Row is one pair under the reference model.
type Row struct {
	// ID names the pair.
	ID datasets.ID
	// Prompt, Chosen and Rejected are token ids.
	Prompt, Chosen, Rejected []int32
	// ChosenRefLogps and RejectedRefLogps are the reference's log-probs of the completion
	// tokens, nats, one per token.
	ChosenRefLogps, RejectedRefLogps []float32
	// ChosenFeatures and RejectedFeatures are the hidden states [T,D] before the head,
	// row-major, already rounded to the stored dtype, or empty where that is [None]. Row t
	// predicts completion token t.
	ChosenFeatures, RejectedFeatures []float32
	// Weight is the pair's weight in the loss.
	Weight float32
	// PromptKey names the prompt before truncation: pairs of one prompt have one key,
	// though Prompt may hold different ends of it.
	PromptKey [16]byte
}

// A FeatureError is a hidden state that the stored dtype can't hold.
type FeatureError struct {
	// ID names the pair, Side is "chosen" or "rejected".
	ID   datasets.ID
	Side string
	// Token is the completion token, Value its state before rounding.
	Token int
	Value float32
	DType DType
}

// Error implements error.
func (e *FeatureError) Error() string {
	text := fmt.Sprintf("refcache: pair %v: hidden state of %s token %d is %v, want ", e.ID, e.Side, e.Token, e.Value)
	if !finite(e.Value) {
		return text + "a finite number"
	}
	return text + fmt.Sprintf("at most %.5g in size, the most that %s holds", largest[e.DType], e.DType)
}

// largest is the largest finite value of a dtype.
var largest = map[DType]float32{F16: 65504, BF16: fromBfloat16(0x7f7f), F32: math.MaxFloat32}

// Wider lists the dtypes that hold the value, smallest first.
func (e *FeatureError) Wider() (wider []DType) {
	for _, dt := range []DType{F16, BF16, F32} {
		if finite(dt.nearest(e.Value)) {
			wider = append(wider, dt)
		}
	}
	return wider
}

// check reports what makes r unfit to be stored.
func (r *Row) check(d int, dt DType) error {
	if err := r.checkSide("chosen", d, dt, r.Chosen, r.ChosenRefLogps, r.ChosenFeatures); err != nil {
		return err
	}
	return r.checkSide("rejected", d, dt, r.Rejected, r.RejectedRefLogps, r.RejectedFeatures)
}

func (r *Row) checkSide(side string, d int, dt DType, ids []int32, logps, features []float32) error {
	if len(ids) == 0 {
		return fmt.Errorf("refcache: pair %v: %s has no tokens", r.ID, side)
	}
	if dt == None {
		d = 0
	}
	if len(logps) != len(ids) || len(features) != len(ids)*d {
		return fmt.Errorf("refcache: pair %v: %s has %d tokens, %d log-probs and %d feature values, want %d per token",
			r.ID, side, len(ids), len(logps), len(features), d)
	}
	for t, p := range logps {
		if !finite(p) {
			return fmt.Errorf("refcache: pair %v: reference log-prob of %s token %d is %v, want a finite number", r.ID, side, t, p)
		}
	}
	if at := overflow(features, dt); at >= 0 {
		return &FeatureError{ID: r.ID, Side: side, Token: at / d, Value: features[at], DType: dt}
	}
	return nil
}

func finite(x float32) bool { return math.Abs(float64(x)) <= math.MaxFloat32 }
