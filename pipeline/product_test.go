package pipeline

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// rowsEngine keeps what it was last asked for.
type rowsEngine struct {
	models.Engine
	targets []int32
	coef    []float64
}

func (e *rowsEngine) Load(ctx context.Context, rows models.Rows) error {
	e.targets = slices.Clone(rows.Targets)
	return e.Engine.Load(ctx, rows)
}

func (e *rowsEngine) Backward(ctx context.Context, coef []float64, grad models.AdditionGrad) error {
	e.coef = slices.Clone(coef)
	return e.Engine.Backward(ctx, coef, grad)
}

// Chosen " ab" and rejected " acd" begin with two tokens that a cache has once: the engine
// gets them once, with both sides' coefficients. DPO's cancel. Those of a log-prob a token
// do not where lengths differ, 4 and 5 with the end: -g/4 + g/5 is a fifth of -g/4.
func TestSharedTokensAreScoredOnce(t *testing.T) {
	w := newWorld(t)
	w.write("pairs.jsonl", `{"prompt": "q:", "chosen": " ab", "rejected": " acd"}`+"\n")
	cfg := w.precomputeConfig(w.path("pairs.jsonl"))
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	cache, err := refcache.Open(cfg.Out)
	must(t, err)
	defer cache.Close()
	batch := make([]refcache.Row, 1)
	must(t, cache.Row(0, &batch[0]))
	v, err := vocabulary(cache)
	must(t, err)
	const end = worldVocabulary - 1
	for spec, part := range map[string]float64{"sigmoid": 0, "ipo": 0.2, "sft": 1} {
		objective, err := loss.Parse(spec, loss.DefaultOptions())
		must(t, err)
		engine := &rowsEngine{Engine: models.NewGonum(v)}
		one := newScorer(models.NewLoRA(v.D, v.V, 3, 6, 1), objective)
		must(t, newProduct(engine, 0).score(context.Background(), batch, []*scorer{one}, true))
		if want := []int32{' ', 'a', 'b', end, 'c', 'd', end}; !slices.Equal(engine.targets, want) {
			t.Fatalf("%s: rows are %v, want %v", spec, engine.targets, want)
		}
		for i := range 2 {
			// Row 2 is of the chosen side alone.
			want := part * engine.coef[2]
			if d := math.Abs(engine.coef[i] - want); engine.coef[2] == 0 || !(d <= float64Sum*math.Abs(want)) {
				t.Errorf("%s: coefficient of row %d is %g beside %g, want %g", spec, i, engine.coef[i], engine.coef[2], want)
			}
		}
		if m := one.each[0].Means(); m.Tokens != 9 || m.ChosenTokens != 4 {
			t.Errorf("%s: %d tokens are counted, %d of them chosen, want 9 and 4", spec, m.Tokens, m.ChosenTokens)
		}
	}
}

// float64Sum is the share by which a sum of two float64 products may differ.
const float64Sum = 1e-14

// apart lays pairs out as if no pair had tokens in common.
func apart(batch []refcache.Row, d, limit int) ([][]span, bool) {
	sizes := pairSizes(batch, d)
	for i := range sizes {
		sizes[i].shared = 0
	}
	return layout(sizes, limit)
}

// randomPairs draws pairs whose completions may begin with the same tokens; the cached log-probs are the
// frozen head's.
func randomPairs(t *rapid.T, v *models.Vocabulary) []refcache.Row {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "values"), 1))
	engine := models.NewGonum(v)
	side := func(n int) ([]int32, []float32, []float32) {
		ids, logps, features := make([]int32, n), make([]float32, n), make([]float32, n*v.D)
		for i := range ids {
			ids[i] = int32(rng.IntN(v.V))
		}
		for i := range features {
			features[i] = float32(rng.NormFloat64())
		}
		var out models.Tokens
		rows := models.Rows{N: n, Hidden: features, Targets: ids}
		if err := models.Forward(context.Background(), engine, rows, models.Addition{}, &out); err != nil {
			t.Fatal(err)
		}
		for i, p := range out.Logps {
			logps[i] = float32(p)
		}
		return ids, logps, features
	}
	batch := make([]refcache.Row, rapid.IntRange(1, 6).Draw(t, "pairs"))
	for i := range batch {
		r := &batch[i]
		nc, nr := rapid.IntRange(1, 12).Draw(t, "nc"), rapid.IntRange(1, 12).Draw(t, "nr")
		r.Chosen, r.ChosenRefLogps, r.ChosenFeatures = side(nc)
		r.Rejected, r.RejectedRefLogps, r.RejectedFeatures = side(nr)
		share(r, rapid.IntRange(0, min(nc, nr)).Draw(t, "common"), v.D)
		r.Weight = float32(1 + i%3)
	}
	return batch
}

// smallVocabulary is a random LM head.
func smallVocabulary() *models.Vocabulary {
	rng := rand.New(rand.NewPCG(3, 4))
	v := &models.Vocabulary{V: 17, D: 5, Weight: make([]float32, 17*5), Scale: 1}
	for i := range v.Weight {
		v.Weight[i] = float32(rng.NormFloat64())
	}
	return v
}

// movedHead is a head that changes log-probs.
func movedHead(v *models.Vocabulary) *models.LoRA {
	h := models.NewLoRA(v.D, v.V, 3, 6, 1)
	for i := range h.B {
		h.B[i] = float32(i%7-3) / 20
	}
	return h
}

// Every completion gets what the head makes of it alone, bit for bit.
func TestEachSideGetsItsOwnTokens(t *testing.T) {
	v := smallVocabulary()
	objective, err := loss.Parse("sigmoid", loss.DefaultOptions())
	must(t, err)
	rapid.Check(t, func(t *rapid.T) {
		batch := randomPairs(t, v)
		engine, head := models.NewGonum(v), movedHead(v)
		one := newScorer(head, objective)
		limit := rapid.SampledFrom([]int{1 << 20, 30, 9, 1}).Draw(t, "limit")
		err := newProduct(engine, limit).score(context.Background(), batch, []*scorer{one}, false)
		for i := range batch {
			var tokens loss.Metrics
			for k, chosen := range []bool{true, false} {
				ids, logps, features := completionRow(&batch[i], chosen)
				var out models.Tokens
				err = errors.Join(err,
					engine.Load(context.Background(), models.Rows{N: len(ids), Hidden: features, Targets: ids, RefLogps: logps}),
					head.Forward(context.Background(), engine, &out))
				if err != nil {
					t.Fatal(err)
				}
				right := 0
				for at, id := range ids {
					right += int(count(out.Top[at] == id))
				}
				tokens.AddTokens(chosen, len(ids), right, out.Entropy, out.KL)
				if s := one.sides[2*i+k]; !slices.Equal(s.logps, out.Logps) || !slices.Equal(s.logSumSq, out.LogSumSq) || s.right != right {
					t.Fatalf("pair %d, chosen %v: %d right and log-probs %v, want %d and %v", i, chosen, s.right, s.logps, right, out.Logps)
				}
			}
			got, want := one.each[i].Means(), tokens.Means()
			if got.Entropy != want.Entropy || got.KL != want.KL || got.MeanTokenAccuracy != want.MeanTokenAccuracy || got.Tokens != want.Tokens {
				t.Fatalf("pair %d: means over tokens are %+v, want those of %+v", i, got, want)
			}
		}
	})
}

// Log-probs, losses and metrics are the same bits whether tokens that chosen and rejected
// share are scored once or twice, and gradients the same sums, whatever the micro-batches.
func TestSharingMovesNoResult(t *testing.T) {
	plain, ld, wpo := loss.DefaultOptions(), loss.DefaultOptions(), loss.DefaultOptions()
	ld.LDAlpha, wpo.WPO = 0.3, true
	v := smallVocabulary()
	for name, c := range map[string]struct {
		spec string
		opt  loss.Options
	}{
		"sigmoid": {"sigmoid", plain}, "sigmoid, ld_alpha": {"sigmoid", ld}, "sigmoid, wpo": {"sigmoid", wpo},
		"ipo": {"ipo", plain}, "sft": {"sft", plain}, "mix": {"sigmoid:0.5,sft:2", plain}, "whole batch": {"aot", plain},
	} {
		t.Run(name, func(t *testing.T) {
			objective, err := loss.Parse(c.spec, c.opt)
			must(t, err)
			rapid.Check(t, func(t *rapid.T) {
				batch := randomPairs(t, v)
				limit := rapid.SampledFrom([]int{1 << 20, 30, 9, 1}).Draw(t, "limit")
				var heads [2]*models.LoRA
				var scorers [2]*scorer
				for i := range heads {
					heads[i] = movedHead(v)
					scorers[i] = newScorer(heads[i], objective)
				}
				p := newProduct(models.NewGonum(v), limit)
				micros, whole := apart(batch, v.D, limit)
				err := errors.Join(
					p.score(context.Background(), batch, scorers[:1], true),
					p.scoreIn(context.Background(), batch, micros, whole, scorers[1:], true))
				if err != nil {
					t.Fatal(err)
				}
				for i := range scorers[0].sides {
					a, b := scorers[0].sides[i], scorers[1].sides[i]
					if !slices.Equal(a.logps, b.logps) || !slices.Equal(a.coef, b.coef) {
						t.Fatalf("side %d: log-probs %v and coefficients %v, want %v and %v", i, a.logps, a.coef, b.logps, b.coef)
					}
				}
				for i, m := range scorers[0].each {
					if m != scorers[1].each[i] {
						t.Fatalf("pair %d: metrics are %+v, want %+v", i, m.Means(), scorers[1].each[i].Means())
					}
				}
				sameGradient(t, heads[0], heads[1], addable(batch, scorers[1]))
			})
		})
	}
}

// addable is what a batch's tokens could add to a gradient if none took from another: what
// cancels leaves rounding errors of this size, whatever is left.
func addable(batch []refcache.Row, s *scorer) (sum float64) {
	for i, side := range s.sides {
		_, _, features := completionRow(&batch[i/2], i%2 == 0)
		for _, c := range side.coef {
			sum += math.Abs(c) * maxAbs(features)
		}
	}
	return sum
}

func sameGradient(t *rapid.T, got, want *models.LoRA, scale float64) {
	for k, p := range got.Params() {
		other := want.Params()[k]
		for i, g := range p.Grad {
			if d := math.Abs(float64(g - other.Grad[i])); !(d <= float32Grad*scale) {
				t.Fatalf("gradient of %s[%d] is %g, want %g ± %g", p.Name, i, g, other.Grad[i], float32Grad*scale)
			}
		}
	}
}
