package pipeline

import (
	"errors"
	"fmt"
	"math"
	"reflect"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
)

// A FieldError is a setting that can't be used. Field is its flag's name.
type FieldError struct {
	Field string
	Value any
	Want  string
}

func (e *FieldError) Error() string {
	if reflect.ValueOf(e.Value).Kind() == reflect.String {
		return fmt.Sprintf("%s is %q, want %s", e.Field, e.Value, e.Want)
	}
	return fmt.Sprintf("%s is %v, want %s", e.Field, e.Value, e.Want)
}

// check collects every unusable setting of a config.
type check struct{ errs []error }

func (c *check) that(ok bool, field string, value any, want string) {
	if !ok {
		c.errs = append(c.errs, &FieldError{field, value, want})
	}
}

func (c *check) engine(name string) {
	c.that(name == "ort" || name == "gonum", "--engine", name, "ort or gonum")
}

func (c *check) err() error { return errors.Join(c.errs...) }

// PrecomputeConfig says what to run through the reference and how.
type PrecomputeConfig struct {
	// Model is a model folder or .onnx file; ModelFile picks an .onnx file in it.
	Model     string `json:"model" yaml:"model"`
	ModelFile string `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	// Data lists files, globs and folders of preference pairs.
	Data    []string         `json:"data" yaml:"data"`
	Reading datasets.Options `json:"reading" yaml:"reading"`
	// Out is the cache folder.
	Out    string         `json:"out" yaml:"out"`
	Encode encode.Options `json:"encode" yaml:"encode"`
	// Features is the dtype in which hidden states are stored, or none.
	Features refcache.DType `json:"features" yaml:"features"`
	// BatchTokens bounds the tokens of one run of the backbone, padding included.
	BatchTokens int `json:"batch_tokens" yaml:"batch_tokens"`
	// Memory bounds the keys and values that are kept and copied at once, bytes; less of it means
	// less sharing and smaller batches.
	Memory int64 `json:"memory" yaml:"memory"`
	// PartPairs bounds the pairs of one part of the cache: the work a kill can lose.
	PartPairs int `json:"part_pairs" yaml:"part_pairs"`
	// Prune lets pairs that are not in the data leave a finished cache.
	Prune bool `json:"prune,omitempty" yaml:"prune,omitempty"`
	// Limit ends the pass after that many usable pairs; 0 means all.
	Limit int64 `json:"limit,omitempty" yaml:"limit,omitempty"`
	// Shards splits the pass among so many processes, of which this one is number Shard,
	// from 0; 0 does not split it. It is what a process does, and no setting of the cache.
	Shards int `json:"-" yaml:"-"`
	Shard  int `json:"-" yaml:"-"`
	// Elsewhere is the manifest of this shard where it is whole in another place: if it is of
	// this pass, nothing is left to do.
	Elsewhere *refcache.Manifest `json:"-" yaml:"-"`
	// Strict makes the first unusable row an error; else more than MaxBadFrac of
	// the rows being unusable is one.
	Strict     bool    `json:"strict,omitempty" yaml:"strict,omitempty"`
	MaxBadFrac float64 `json:"max_bad_frac" yaml:"max_bad_frac"`
}

// DefaultPrecomputeConfig holds the defaults of precompute-ref.
func DefaultPrecomputeConfig() PrecomputeConfig {
	return PrecomputeConfig{
		Reading:     datasets.DefaultOptions(),
		Encode:      encode.DefaultOptions(),
		Features:    refcache.F16,
		BatchTokens: 256,
		Memory:      defaultMemory(),
		PartPairs:   256,
		MaxBadFrac:  0.01,
	}
}

// Validate reports every setting that can't be used, joined.
func (c PrecomputeConfig) Validate() error {
	var k check
	k.that(c.Model != "", "--model", "", "a model folder or .onnx file")
	k.that(len(c.Data) > 0, "--data", "", "files, globs or folders of preference pairs")
	k.that(c.Out != "", "--out", "", "the folder to write the cache to")
	_, err := refcache.ParseDType(string(c.Features))
	k.that(err == nil, "--features", c.Features, refcache.DTypeNames)
	k.that(c.Encode.MaxLength >= 2, "--max-length", c.Encode.MaxLength, "2 or more tokens")
	k.that(c.Encode.Truncation == encode.KeepStart || c.Encode.Truncation == encode.KeepEnd,
		"--truncation", c.Encode.Truncation, "keep_start or keep_end")
	k.that(c.BatchTokens >= 1, "--batch-tokens", c.BatchTokens, "1 or more")
	k.that(c.Memory >= 1, "--memory", c.Memory, "1 byte or more")
	k.that(c.PartPairs >= 1, "--part-pairs", c.PartPairs, "1 or more")
	k.that(c.Limit >= 0, "--limit", c.Limit, "0 (all) or more")
	k.that(c.MaxBadFrac >= 0 && c.MaxBadFrac <= 1, "--max-bad-frac", c.MaxBadFrac, "a share from 0 to 1")
	k.shards(c)
	return k.err()
}

// maxShards is what the names of their folders have digits for.
const maxShards = 99999

func (k *check) shards(c PrecomputeConfig) {
	k.that(c.Shards >= 0 && c.Shards <= maxShards, "--shards", c.Shards, fmt.Sprintf("0 (one process for all) to %d", maxShards))
	k.that(c.Shards < 1 || c.Shard >= 0 && c.Shard < c.Shards, "--shard", c.Shard, fmt.Sprintf("0 to %d, as --shards is %d", c.Shards-1, c.Shards))
	k.that(c.Shards < 1 || !c.Prune, "--prune", c.Prune, "none with --shards: a split pass makes a new cache and updates none")
}

// TrainConfig says how to train a policy head against a cache.
type TrainConfig struct {
	// Cache is a reference cache, Out the run folder.
	Cache string `json:"cache" yaml:"cache"`
	Out   string `json:"out" yaml:"out"`
	// Model and Data, where given, must be those that the cache was made from. A cache
	// without features needs Model.
	Model     string   `json:"model,omitempty" yaml:"model,omitempty"`
	ModelFile string   `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	Data      []string `json:"data,omitempty" yaml:"data,omitempty"`
	// Folders say where on this machine a Cache, a Model or Data is that is no path here but
	// the URL of a store, by URL. What is written down is the URL.
	Folders map[string][]string `json:"-" yaml:"-"`

	// Head is the kind of policy head, one of models.Kinds. Rank and Alpha are of those
	// that have one; RSLoRA scales by α/√r instead of α/r.
	Head   string  `json:"head" yaml:"head"`
	Rank   int     `json:"rank" yaml:"rank"`
	Alpha  float64 `json:"alpha" yaml:"alpha"`
	RSLoRA bool    `json:"rslora" yaml:"rslora"`

	// Loss is the objective, Beta the KL strength, LabelSmoothing ε in [0, 0.5).
	Loss           string  `json:"loss" yaml:"loss"`
	Beta           float64 `json:"beta" yaml:"beta"`
	LabelSmoothing float64 `json:"label_smoothing" yaml:"label_smoothing"`
	// FDivergence turns log-ratios into scores: reverse_kl, forward_kl, js, or alpha
	// with the coefficient FAlpha.
	FDivergence string  `json:"f_divergence" yaml:"f_divergence"`
	FAlpha      float64 `json:"f_alpha" yaml:"f_alpha"`
	// LDAlpha in [0,1] weighs tokens past the shorter completion; WPO weighs pairs by how
	// likely the policy is to write them.
	LDAlpha float64 `json:"ld_alpha" yaml:"ld_alpha"`
	WPO     bool    `json:"wpo" yaml:"wpo"`
	// Gamma is simpo's margin, NLLWeight cpo's α, Lambda dpop's penalty, Tau
	// discopop's temperature.
	Gamma     float64 `json:"gamma" yaml:"gamma"`
	NLLWeight float64 `json:"nll_weight" yaml:"nll_weight"`
	Lambda    float64 `json:"lambda" yaml:"lambda"`
	Tau       float64 `json:"tau" yaml:"tau"`

	// LR is the peak learning rate, Schedule its course, Warmup the share of steps
	// over which it rises.
	LR          float64 `json:"lr" yaml:"lr"`
	Schedule    string  `json:"schedule" yaml:"schedule"`
	Warmup      float64 `json:"warmup" yaml:"warmup"`
	WeightDecay float64 `json:"weight_decay" yaml:"weight_decay"`
	// MaxGradNorm clips the gradient; 0 means never.
	MaxGradNorm float64 `json:"max_grad_norm" yaml:"max_grad_norm"`

	// Epochs over the training pairs, ended early by MaxSteps unless that is 0.
	Epochs   int   `json:"epochs" yaml:"epochs"`
	MaxSteps int64 `json:"max_steps" yaml:"max_steps"`
	// BatchPairs is the optimizer batch; MicroTokens bounds the distinct completion
	// tokens of one product with the vocabulary, 0 chooses by V. It moves no result but
	// in the last bits.
	BatchPairs  int `json:"batch_pairs" yaml:"batch_pairs"`
	MicroTokens int `json:"micro_tokens" yaml:"micro_tokens"`

	// EvalFrac of the prompts are held out.
	EvalFrac float64 `json:"eval_frac" yaml:"eval_frac"`
	// EvalEvery, SaveEvery and LogEvery count steps; EvalEvery 0 evaluates before
	// the first and after the last step only.
	EvalEvery int64 `json:"eval_every" yaml:"eval_every"`
	SaveEvery int64 `json:"save_every" yaml:"save_every"`
	LogEvery  int64 `json:"log_every" yaml:"log_every"`
	// Keep is how many of the newest checkpoints stay, KeepBest how many of the best by
	// BestMetric, a metric of the held-out pairs; BestDirection is lower, higher or auto.
	Keep          int    `json:"keep" yaml:"keep"`
	KeepBest      int    `json:"keep_best" yaml:"keep_best"`
	BestMetric    string `json:"best_metric" yaml:"best_metric"`
	BestDirection string `json:"best_direction" yaml:"best_direction"`
	// EarlyStop ends training after so many evaluations without a better best; 0 never.
	EarlyStop int `json:"early_stop" yaml:"early_stop"`
	// RestoreBest makes the best checkpoint the result of the run instead of the newest.
	RestoreBest bool `json:"restore_best" yaml:"restore_best"`

	// Engine multiplies the matrices: ort or gonum.
	Engine string `json:"engine" yaml:"engine"`
	Seed   uint64 `json:"seed" yaml:"seed"`
	// Resume goes on from the last checkpoint of Out.
	Resume bool `json:"-" yaml:"-"`
}

// DefaultTrainConfig holds the defaults of train.
func DefaultTrainConfig() TrainConfig {
	o := loss.DefaultOptions()
	return TrainConfig{
		Head: "lora", Rank: 16, Alpha: 32,
		Loss: "sigmoid", Beta: o.Beta, FDivergence: o.Divergence.String(), FAlpha: o.DivergenceAlpha,
		LDAlpha: o.LDAlpha, Gamma: o.Gamma, NLLWeight: o.NLLWeight, Lambda: o.Lambda, Tau: o.Temperature,
		LR: 1e-3, Schedule: "cosine", Warmup: 0.1, MaxGradNorm: 1,
		Epochs: 1, BatchPairs: 16,
		EvalFrac: 0.1, SaveEvery: 100, LogEvery: 10,
		Keep: 2, KeepBest: 1, BestMetric: "loss", BestDirection: autoDirection,
		Engine: "ort", Seed: 42,
	}
}

// Validate reports every setting that can't be used, joined.
func (c TrainConfig) Validate() error {
	var k check
	k.places(c)
	k.head(c)
	k.that(positive(c.Beta), "--beta", c.Beta, "a number > 0 (the DPO paper uses 0.1)")
	k.that(c.LabelSmoothing >= 0 && c.LabelSmoothing < 0.5, "--label-smoothing", c.LabelSmoothing, "a number in [0, 0.5)")
	_, err := loss.ParseDivergence(c.FDivergence)
	k.that(err == nil, "--f-divergence", c.FDivergence, "reverse_kl, forward_kl, js or alpha")
	k.that(finite(c.FAlpha), "--f-alpha", c.FAlpha, "a number")
	k.that(c.LDAlpha >= 0 && c.LDAlpha <= 1, "--ld-alpha", c.LDAlpha, "a number in [0, 1]")
	k.that(c.Gamma >= 0 && finite(c.Gamma), "--gamma", c.Gamma, "a number >= 0")
	k.that(c.NLLWeight >= 0 && finite(c.NLLWeight), "--nll-weight", c.NLLWeight, "a number >= 0")
	k.that(c.Lambda >= 0 && finite(c.Lambda), "--lambda", c.Lambda, "a number >= 0")
	k.that(positive(c.Tau), "--tau", c.Tau, "a number > 0")
	k.that(positive(c.LR), "--lr", c.LR, "a number > 0")
	k.that(c.Schedule == "cosine" || c.Schedule == "linear" || c.Schedule == "constant",
		"--schedule", c.Schedule, "cosine, linear or constant")
	k.that(c.Warmup >= 0 && c.Warmup < 1, "--warmup", c.Warmup, "a share of the steps in [0, 1)")
	k.that(c.WeightDecay >= 0 && finite(c.WeightDecay), "--weight-decay", c.WeightDecay, "a number >= 0")
	k.that(c.MaxGradNorm >= 0 && finite(c.MaxGradNorm), "--max-grad-norm", c.MaxGradNorm, "a number > 0, or 0 for no clipping")
	k.that(c.Epochs >= 1, "--epochs", c.Epochs, "1 or more")
	k.that(c.MaxSteps >= 0, "--max-steps", c.MaxSteps, "0 (no limit) or more")
	k.that(c.BatchPairs >= 1, "--batch-pairs", c.BatchPairs, "1 or more pairs")
	k.that(c.MicroTokens >= 0, "--micro-tokens", c.MicroTokens, "0 (chosen by vocabulary) or more")
	k.that(c.EvalFrac >= 0 && c.EvalFrac < 1, "--eval-frac", c.EvalFrac, "a share of the prompts in [0, 1)")
	k.that(c.EvalEvery >= 0, "--eval-every", c.EvalEvery, "0 (start and end only) or more steps")
	k.that(c.SaveEvery >= 1, "--save-every", c.SaveEvery, "1 or more steps")
	k.that(c.LogEvery >= 1, "--log-every", c.LogEvery, "1 or more steps")
	k.that(c.Keep >= 1, "--keep", c.Keep, "1 or more checkpoints")
	k.best(c)
	k.engine(c.Engine)
	return k.err()
}

func (c *check) places(t TrainConfig) {
	c.that(t.Cache != "", "--cache", "", "a reference cache")
	c.that(t.Out != "", "--out", "", "the folder to write the run to")
}

func positive(x float64) bool { return x > 0 && finite(x) }

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
