package pipeline

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// trained runs a short training over a cache of 40 pairs.
func (w *world) trained() TrainConfig {
	w.t.Helper()
	cfg := w.trainConfig(w.cache(40))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(w.t, err)
	return cfg
}

func evaluated(t testing.TB, cfg EvalConfig) EvalResult {
	t.Helper()
	cfg.Engine = "gonum"
	r, err := Evaluate(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	return r
}

// distributions are log softmax(W h) and log softmax(W h + scale B A h) by their
// definition, in float64, without a bias or a cap.
func distributions(v *models.Vocabulary, head *models.LoRA, h []float32) (reference, policy []float64) {
	u := make([]float64, head.R)
	for k := range u {
		for i, x := range h {
			u[k] += float64(head.A[k*v.D+i]) * float64(x)
		}
	}
	for t := range v.V {
		var z, add float64
		for i, x := range h {
			z += float64(v.Weight[t*v.D+i]) * float64(x)
		}
		for k := range u {
			add += float64(head.B[t*head.R+k]) * u[k]
		}
		reference = append(reference, z)
		policy = append(policy, z+head.Alpha/float64(head.R)*add)
	}
	return logSoftmax(reference), logSoftmax(policy)
}

func logSoftmax(z []float64) []float64 {
	var sum float64
	for _, x := range z {
		sum += math.Exp(x)
	}
	out := make([]float64, len(z))
	for i, x := range z {
		out[i] = x - math.Log(sum)
	}
	return out
}

// moved is how one completion fares under a head, by its definition.
type moved struct{ drift, kl float64 }

func move(v *models.Vocabulary, head *models.LoRA, ids []int32, features []float32) (m moved) {
	for k, id := range ids {
		ref, pol := distributions(v, head, features[k*v.D:(k+1)*v.D])
		m.drift += pol[id] - ref[id]
		for t := range pol {
			m.kl += math.Exp(pol[t]) * (pol[t] - ref[t])
		}
	}
	return m
}

// float32Sum is how far sums over a few hundred float32 log-probs may be from
// float64, relative to figures around 1.
const float32Sum = 1e-4

// Every figure of an evaluation that can be told from dense softmaxes, told so.
func TestEvaluateByDefinition(t *testing.T) {
	w := newWorld(t)
	cfg := w.trained()
	r := evaluated(t, EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName)})
	adapter, _, err := models.ReadAdapter(filepath.Join(cfg.Out, lastName))
	must(t, err)
	cache, err := refcache.Open(cfg.Cache)
	must(t, err)
	defer cache.Close()
	v, err := vocabulary(cache)
	must(t, err)
	var pairs, chosenTokens, rejectedTokens, accurate, lowered, margins, driftC, driftR, kl float64
	split := newSplit(cfg.EvalFrac)
	for i := range cache.Len() {
		var row refcache.Row
		must(t, cache.Row(i, &row))
		if !split.heldOut(row.PromptKey) {
			continue
		}
		c := move(v, adapter.(*models.LoRA), row.Chosen, row.ChosenFeatures)
		j := move(v, adapter.(*models.LoRA), row.Rejected, row.RejectedFeatures)
		pairs++
		chosenTokens += float64(len(row.Chosen))
		rejectedTokens += float64(len(row.Rejected))
		margins += cfg.Beta * (c.drift - j.drift)
		driftC, driftR, kl = driftC+c.drift, driftR+j.drift, kl+c.kl+j.kl
		if c.drift > j.drift {
			accurate++
		}
		if c.drift < 0 {
			lowered++
		}
	}
	if r.Pairs != int64(pairs) || r.ChosenTokens != int64(chosenTokens) || r.RejectedTokens != int64(rejectedTokens) || !r.HeldOut {
		t.Errorf("evaluated %+v, want %g pairs of %g and %g tokens", r, pairs, chosenTokens, rejectedTokens)
	}
	for name, want := range map[string]float64{
		"rewards/margins": margins / pairs, "rewards/accuracies": accurate / pairs, "drift/chosen_lowered": lowered / pairs,
		"drift/chosen": driftC / chosenTokens, "drift/rejected": driftR / rejectedTokens, "kl": kl / (chosenTokens + rejectedTokens),
	} {
		got, in := r.Metrics.Get(name), r.Intervals.Get(name)
		if math.Abs(got-want) > float32Sum {
			t.Errorf("%s is %.7f, by definition %.7f", name, got, want)
		}
		if !(in.Low <= got && got <= in.High) {
			t.Errorf("%s: interval [%g, %g] does not hold %g", name, in.Low, in.High, got)
		}
	}
	inBuckets, inBins := 0, 0
	for _, b := range r.LengthBuckets {
		inBuckets += b.Pairs
	}
	for _, b := range r.Calibration {
		inBins += b.Pairs
	}
	if inBuckets != int(pairs) || inBins != int(pairs) {
		t.Errorf("buckets hold %d pairs, bins %d, want %g", inBuckets, inBins, pairs)
	}
	if len(r.Intervals) != len(r.Metrics) {
		t.Errorf("%d intervals for %d metrics", len(r.Intervals), len(r.Metrics))
	}
}

// A cache of other pairs serves where the model is the same, and is refused where
// it is not.
func TestEvaluateOnAnotherCache(t *testing.T) {
	w := newWorld(t)
	cfg := w.trained()
	checkpoint := filepath.Join(cfg.Out, lastName)
	other := w.precomputeConfig(w.pairs("other.jsonl", 14))
	other.Out = w.path("other")
	_, err := Precompute(context.Background(), other, w.rt, nil)
	must(t, err)
	if r := evaluated(t, EvalConfig{Cache: other.Out, Checkpoint: checkpoint, All: true}); r.Pairs != 14 || r.HeldOut {
		t.Errorf("evaluated %d pairs, held out %v; want all 14", r.Pairs, r.HeldOut)
	}
	stranger := newWorld(t)
	opt := onnxtest.Default()
	opt.V, opt.Seed = worldVocabulary, 2
	stranger.decoder = onnxtest.New(opt)
	stranger.rt.decoder = stranger.decoder
	must(t, stranger.decoder.WriteDir(stranger.path("model")))
	_, err = Evaluate(context.Background(), EvalConfig{Cache: stranger.cache(8), Checkpoint: checkpoint, All: true, Engine: "gonum"}, gonumEngine, nil)
	var stale *refcache.StaleError
	if !errors.As(err, &stale) || stale.Key != "model" {
		t.Errorf("a cache of another model: error is %v, want a *StaleError of model", err)
	}
}

// A flipped bit of a cache is told, not evaluated.
func TestEvaluateRefusesADamagedCache(t *testing.T) {
	w := newWorld(t)
	cfg := w.trained()
	part := filepath.Join(cfg.Cache, "part-00000.arrow")
	data, err := os.ReadFile(part)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(part, data, 0o666))
	e := EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName), Engine: "gonum"}
	if _, err := Evaluate(context.Background(), e, gonumEngine, nil); !errors.Is(err, refcache.ErrCorrupt) {
		t.Errorf("error is %v, want refcache.ErrCorrupt", err)
	}
}

func TestEvaluateWithoutHeldOutPairs(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(8))
	cfg.EvalFrac = 0
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	e := EvalConfig{Cache: cfg.Cache, Checkpoint: filepath.Join(cfg.Out, lastName), Engine: "gonum"}
	if _, err := Evaluate(context.Background(), e, gonumEngine, nil); err == nil || !strings.Contains(err.Error(), "--all") {
		t.Errorf("error is %v, want one that names --all", err)
	}
	e.All = true
	if r := evaluated(t, e); r.Pairs != 8 {
		t.Errorf("evaluated %d pairs, want 8", r.Pairs)
	}
}

func TestAlarms(t *testing.T) {
	for _, tt := range []struct {
		name           string
		drift, lowered float64
		alarm          bool
	}{
		{"fresh", 0, 0, false},
		{"chosen rises", 0.3, 0.1, false},
		{"weak drift", -0.09, 0.9, false},
		{"a few outliers", -0.5, 0.4, false},
		{"strong", -0.11, 0.51, true},
	} {
		got := alarms(Values{{"drift/chosen", tt.drift}, {"drift/chosen_lowered", tt.lowered}})
		if got == nil || (len(got) == 1) != tt.alarm {
			t.Errorf("%s: alarms are %v, want one: %v", tt.name, got, tt.alarm)
		}
	}
}
