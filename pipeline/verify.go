package pipeline

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// The largest difference, nats a token, between a policy's own log-probs and those
// of the head on the same hidden states.
const (
	// tolerance32 leaves room for another order of float32 sums over D and V.
	tolerance32 = 1e-3
	// toleranceHalf is for logits computed in 16 bits, whose own step is 2^-6 at 20.
	toleranceHalf = 6e-2
)

func tolerance(h *onnx.Head) float64 {
	if half(h.Compute) {
		return toleranceHalf
	}
	return tolerance32
}

// Verification compares an exported model with the head it was made from.
type Verification struct {
	Pairs  int   `json:"pairs"`
	Tokens int64 `json:"tokens"`
	// HeldOut says that training saw none of the pairs.
	HeldOut bool `json:"held_out"`
	// MaxDiff is the largest difference between the model's token log-probs and the
	// head's on the same unrounded hidden states, nats; Tolerance what is allowed.
	MaxDiff   float64 `json:"max_diff"`
	Tolerance float64 `json:"tolerance"`
	// MaxRounding is how far the cache's rounding of features moves the head's; 0 where it
	// keeps none.
	MaxRounding  float64        `json:"max_rounding"`
	FeatureDType refcache.DType `json:"feature_dtype"`
	// MaxMoved is the largest distance of the policy from the reference on these tokens:
	// differences are small beside it.
	MaxMoved float64 `json:"max_moved"`
}

// A VerifyError says that an exported model does not do what the head does.
type VerifyError struct {
	Pair, Side string
	Token      int
	// Model and Head are log-probs, nats.
	Model, Head, Tolerance float64
}

func (e *VerifyError) Error() string {
	return fmt.Sprintf("pipeline: the exported model is wrong, nothing was written: pair %s, %s token %d has log-prob %.6f, the head's is %.6f (± %g)",
		e.Pair, e.Side, e.Token, e.Model, e.Head, e.Tolerance)
}

// verifier runs pairs both ways.
type verifier struct {
	policy   LanguageModel
	backbone Backbone
	engine   models.Engine
	head     models.Head
	result   Verification
}

// verify compares the model file with the head on pairs of the cache: on those
// held out or, where training held none out, on any.
func (x *exporter) verify(ctx context.Context, rt Runtime, file string, report Reporter) (Verification, error) {
	v := &verifier{head: x.head}
	v.result.Tolerance = tolerance(x.base.head)
	v.result.FeatureDType = x.cache.Manifest().FeatureDType
	var err error
	if v.policy, err = rt.OpenLanguageModel(file); err != nil {
		return Verification{}, err
	}
	defer v.policy.Close()
	if v.backbone, err = x.base.openBackbone(rt); err != nil {
		return Verification{}, err
	}
	defer v.backbone.Close()
	if v.engine, err = x.openEngine(rt); err != nil {
		return Verification{}, err
	}
	defer v.engine.Close()
	v.result.HeldOut = true
	if err := v.run(ctx, x.cache, newSplit(x.state.Config.EvalFrac).heldOut, x.cfg.VerifyPairs, report); err != nil {
		return Verification{}, err
	}
	if v.result.Pairs == 0 {
		v.result.HeldOut = false
		err = v.run(ctx, x.cache, everyPair, x.cfg.VerifyPairs, report)
	}
	return v.result, err
}

func (x *exporter) openEngine(rt Runtime) (models.Engine, error) {
	if x.cfg.Engine == "gonum" {
		return models.NewGonum(x.base.vocabulary), nil
	}
	return rt.OpenEngine(x.base.vocabulary)
}

// openCache opens the cache of the run, or the one that was named instead.
func (x *exporter) openCache() (*refcache.Reader, error) {
	path := x.cfg.Cache
	if path == "" {
		path = x.state.Config.Cache
	}
	if path == "" {
		return nil, &FieldError{"--cache", "", "a reference cache to verify on: the checkpoint does not name one"}
	}
	cache, err := refcache.Open(path)
	if err != nil {
		return nil, err
	}
	sum, err := x.base.model.SHA256()
	if err == nil {
		err = cache.Manifest().Check(map[string]string{"model": sum})
	}
	if err != nil {
		cache.Close()
		return nil, err
	}
	return cache, nil
}

// run compares up to limit pairs whose prompts pick chooses.
func (v *verifier) run(ctx context.Context, cache *refcache.Reader, pick func(prompt [16]byte) bool, limit int, report Reporter) error {
	start := time.Now()
	var row refcache.Row
	for i := int64(0); i < cache.Len() && v.result.Pairs < limit; i++ {
		key, err := cache.Key(i)
		if err != nil {
			return err
		}
		if !pick(key) {
			continue
		}
		if err := cache.Row(i, &row); err != nil {
			return err
		}
		for _, chosen := range []bool{true, false} {
			if err := v.completion(ctx, &row, chosen); err != nil {
				return err
			}
		}
		v.result.Pairs++
		report.report(Progress{
			Stage: "verify", Done: int64(v.result.Pairs), Total: int64(limit), Unit: "pairs",
			Fresh: int64(v.result.Pairs), Tokens: v.result.Tokens, Elapsed: time.Since(start),
		})
	}
	return nil
}

// completion compares one completion three ways: the model itself, the head on
// the same hidden states, the head on the cached ones, if there are some.
func (v *verifier) completion(ctx context.Context, row *refcache.Row, chosen bool) error {
	ids, ref, cached := completionRow(row, chosen)
	seq := slices.Concat(row.Prompt, ids)
	model, err := v.policy.Logps(ctx, seq, len(row.Prompt))
	if err != nil {
		return err
	}
	exact := &models.Run{IDs: seq[:len(seq)-1], From: len(row.Prompt) - 1}
	if err := v.backbone.Run(ctx, []*models.Run{exact}); err != nil {
		return err
	}
	if len(cached) == 0 {
		cached = exact.Hidden
	}
	var head, rounded models.Tokens
	if err := models.Score(ctx, v.engine, v.head, models.Rows{N: len(ids), Hidden: exact.Hidden, Targets: ids}, &head); err != nil {
		return err
	}
	if err := models.Score(ctx, v.engine, v.head, models.Rows{N: len(ids), Hidden: cached, Targets: ids}, &rounded); err != nil {
		return err
	}
	r := &v.result
	for t := range ids {
		diff := math.Abs(model[t] - head.Logps[t])
		// Written so that NaN fails.
		if !(diff <= r.Tolerance) {
			return &VerifyError{row.ID.String(), sideName(chosen), t, model[t], head.Logps[t], r.Tolerance}
		}
		r.MaxDiff = max(r.MaxDiff, diff)
		r.MaxRounding = max(r.MaxRounding, math.Abs(rounded.Logps[t]-head.Logps[t]))
		r.MaxMoved = max(r.MaxMoved, math.Abs(head.Logps[t]-float64(ref[t])))
	}
	r.Tokens += int64(len(ids))
	return nil
}
