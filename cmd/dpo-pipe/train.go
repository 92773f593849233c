package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

const trainExample = `Trains a policy head with a preference loss against a reference cache; the model
itself is not run. --resume goes on with a run that was stopped, under the
settings it was started with.

  dpo-pipe train --cache ./cache --out ./run --epochs 3 --eval-frac 0.2
  dpo-pipe train --out ./run --resume

--sweep trains a head for every combination of values at once, each in a folder of its
own with the bytes it would have alone, and ranks them. ; separates values where one
holds a comma: --sweep 'loss=ipo;sigmoid:0.8,sft:0.2'.

  dpo-pipe train --cache ./cache --out ./sweep --sweep beta=0.05,0.1,0.3 --sweep lr=1e-4,1e-3`

func (a *app) trainCommand() *cli.Command {
	d := pipeline.DefaultTrainConfig()
	return &cli.Command{
		Name: "train", Usage: "train a policy head against a reference cache", Description: trainExample,
		Action: a.train,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "cache", Usage: "reference cache `FOLDER`"},
			&cli.StringFlag{Name: "out", Usage: "run `FOLDER` to write"},
			&cli.BoolFlag{Name: "resume", Usage: "go on from the run's last checkpoint; starts it where there is none"},
			&cli.StringFlag{Name: "model", Usage: "check that the cache was made from this model `FOLDER`; run it where the cache keeps no features"},
			&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in it"},
			&cli.StringSliceFlag{Name: dataFlag, Usage: "check that the cache was made from these data `FILES`"},
			&cli.StringFlag{Name: "head", Value: d.Head, Usage: "policy head: " + pipeline.HeadNames()},
			&cli.IntFlag{Name: "rank", Value: d.Rank, Usage: "rank of the head"},
			&cli.Float64Flag{Name: "alpha", Value: d.Alpha, Usage: "the head is scaled by alpha/rank"},
			&cli.BoolFlag{Name: "rslora", Usage: "scale by alpha/√rank, which suits high ranks"},
			&cli.StringFlag{Name: "loss", Value: d.Loss, Usage: "objective, or a mix such as sigmoid:0.8,sft:0.2 (dpo-pipe objectives lists them)"},
			&cli.Float64Flag{Name: "beta", Value: d.Beta, Usage: "strength of the pull towards the reference"},
			&cli.Float64Flag{Name: "label-smoothing", Value: d.LabelSmoothing, Usage: "share of pairs taken to be mislabelled"},
			&cli.StringFlag{Name: "f-divergence", Value: d.FDivergence, Usage: "scores of log-ratios: reverse_kl, forward_kl, js or alpha"},
			&cli.Float64Flag{Name: "f-alpha", Value: d.FAlpha, Usage: "coefficient of --f-divergence alpha"},
			&cli.Float64Flag{Name: "ld-alpha", Value: d.LDAlpha, Usage: "weight of tokens past the shorter completion (LD-DPO)"},
			&cli.BoolFlag{Name: "wpo", Value: d.WPO, Usage: "weigh pairs by how likely the policy is to write them (WPO)"},
			&cli.Float64Flag{Name: "gamma", Value: d.Gamma, Usage: "target margin of simpo"},
			&cli.Float64Flag{Name: "nll-weight", Value: d.NLLWeight, Usage: "weight of the NLL inside cpo"},
			&cli.Float64Flag{Name: "lambda", Value: d.Lambda, Usage: "penalty of dpop"},
			&cli.Float64Flag{Name: "tau", Value: d.Tau, Usage: "temperature of discopop"},
			&cli.Float64Flag{Name: "lr", Value: d.LR, Usage: "peak learning rate"},
			&cli.StringFlag{Name: "schedule", Value: d.Schedule, Usage: "cosine, linear or constant"},
			&cli.Float64Flag{Name: "warmup", Value: d.Warmup, Usage: "share of the steps over which the rate rises"},
			&cli.Float64Flag{Name: "weight-decay", Value: d.WeightDecay, Usage: "decoupled weight decay"},
			&cli.Float64Flag{Name: "max-grad-norm", Value: d.MaxGradNorm, Usage: "clip the gradient's norm; 0 never"},
			&cli.IntFlag{Name: "epochs", Value: d.Epochs, Usage: "passes over the training pairs"},
			&cli.Int64Flag{Name: "max-steps", Usage: "end after `N` steps", DefaultText: "all epochs"},
			&cli.IntFlag{Name: "batch-pairs", Value: d.BatchPairs, Usage: "pairs of one optimizer step"},
			&cli.IntFlag{Name: "micro-tokens", Usage: "tokens of one product with the vocabulary", DefaultText: "by its size"},
			&cli.Float64Flag{Name: "eval-frac", Value: d.EvalFrac, Usage: "share of the prompts held out"},
			&cli.Int64Flag{Name: "eval-every", Value: d.EvalEvery, Usage: "evaluate every `N` steps", DefaultText: "before the first and after the last"},
			&cli.Int64Flag{Name: "save-every", Value: d.SaveEvery, Usage: "write a checkpoint every `N` steps"},
			&cli.Int64Flag{Name: "log-every", Value: d.LogEvery, Usage: "write metrics every `N` steps"},
			&cli.IntFlag{Name: "keep", Value: d.Keep, Usage: "how many of the newest checkpoints stay; best always does"},
			&cli.IntFlag{Name: "keep-best", Value: d.KeepBest, Usage: "how many of the best checkpoints stay"},
			&cli.StringFlag{Name: "best-metric", Value: d.BestMetric, Usage: "held-out metric that says which is best"},
			&cli.StringFlag{Name: "best-direction", Value: d.BestDirection, Usage: "whether lower or higher is better; auto knows for most"},
			&cli.IntFlag{Name: "early-stop", Value: d.EarlyStop, Usage: "end after `N` evaluations without a better best; 0 never"},
			&cli.StringFlag{Name: "engine", Value: d.Engine, Usage: "who multiplies matrices: ort or gonum"},
			&cli.Uint64Flag{Name: "seed", Value: d.Seed, Usage: "of initialisation and shuffling"},
			&cli.BoolFlag{Name: "restore-best", Usage: "hand over the best checkpoint instead of the newest"},
			&cli.StringSliceFlag{Name: sweepFlag, Usage: "train a head for each value of a setting: `KEY=V1,V2,…`; may be repeated"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say which runs there would be, and train none"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

// trainConfigFrom starts from the defaults or, on --resume, from the settings of
// the run or sweep, and overlays the flags that were given.
func trainConfigFrom(c *cli.Context) (pipeline.TrainConfig, error) {
	cfg := pipeline.DefaultTrainConfig()
	if c.Bool("resume") {
		earlier, err := earlierConfig(c.String("out"))
		switch {
		case err == nil:
			cfg = earlier
		case !errors.Is(err, fs.ErrNotExist):
			return cfg, err
		}
	}
	cfg.Out, cfg.Resume = c.String("out"), c.Bool("resume")
	overlay(c, "cache", c.String, &cfg.Cache)
	overlay(c, "model", c.String, &cfg.Model)
	overlay(c, "model-file", c.String, &cfg.ModelFile)
	overlay(c, dataFlag, c.StringSlice, &cfg.Data)
	overlay(c, "head", c.String, &cfg.Head)
	overlay(c, "rank", c.Int, &cfg.Rank)
	overlay(c, "alpha", c.Float64, &cfg.Alpha)
	overlay(c, "rslora", c.Bool, &cfg.RSLoRA)
	overlay(c, "loss", c.String, &cfg.Loss)
	overlay(c, "beta", c.Float64, &cfg.Beta)
	overlay(c, "label-smoothing", c.Float64, &cfg.LabelSmoothing)
	overlay(c, "f-divergence", c.String, &cfg.FDivergence)
	overlay(c, "f-alpha", c.Float64, &cfg.FAlpha)
	overlay(c, "ld-alpha", c.Float64, &cfg.LDAlpha)
	overlay(c, "wpo", c.Bool, &cfg.WPO)
	overlay(c, "gamma", c.Float64, &cfg.Gamma)
	overlay(c, "nll-weight", c.Float64, &cfg.NLLWeight)
	overlay(c, "lambda", c.Float64, &cfg.Lambda)
	overlay(c, "tau", c.Float64, &cfg.Tau)
	overlay(c, "lr", c.Float64, &cfg.LR)
	overlay(c, "schedule", c.String, &cfg.Schedule)
	overlay(c, "warmup", c.Float64, &cfg.Warmup)
	overlay(c, "weight-decay", c.Float64, &cfg.WeightDecay)
	overlay(c, "max-grad-norm", c.Float64, &cfg.MaxGradNorm)
	overlay(c, "epochs", c.Int, &cfg.Epochs)
	overlay(c, "max-steps", c.Int64, &cfg.MaxSteps)
	overlay(c, "batch-pairs", c.Int, &cfg.BatchPairs)
	overlay(c, "micro-tokens", c.Int, &cfg.MicroTokens)
	overlay(c, "eval-frac", c.Float64, &cfg.EvalFrac)
	overlay(c, "eval-every", c.Int64, &cfg.EvalEvery)
	overlay(c, "save-every", c.Int64, &cfg.SaveEvery)
	overlay(c, "log-every", c.Int64, &cfg.LogEvery)
	overlay(c, "keep", c.Int, &cfg.Keep)
	overlay(c, "keep-best", c.Int, &cfg.KeepBest)
	overlay(c, "best-metric", c.String, &cfg.BestMetric)
	overlay(c, "best-direction", c.String, &cfg.BestDirection)
	overlay(c, "early-stop", c.Int, &cfg.EarlyStop)
	overlay(c, "restore-best", c.Bool, &cfg.RestoreBest)
	overlay(c, "engine", c.String, &cfg.Engine)
	overlay(c, "seed", c.Uint64, &cfg.Seed)
	return cfg, nil
}

// earlierConfig is what a run or a sweep was started with.
func earlierConfig(out string) (pipeline.TrainConfig, error) {
	if pipeline.IsSweep(out) {
		cfg, _, err := pipeline.LoadSweep(out)
		return cfg, err
	}
	return pipeline.LoadRunConfig(out)
}

// overlay sets *field where the flag was given.
func overlay[T any](c *cli.Context, name string, get func(string) T, field *T) {
	if c.IsSet(name) {
		*field = get(name)
	}
}

func (a *app) train(c *cli.Context) error {
	p := a.places(c)
	out, err := a.trainOut(c, p)
	if err != nil {
		return err
	}
	defer out.close()
	cfg, err := trainConfigFrom(c)
	if err != nil {
		return err
	}
	axes, err := sweepFrom(c)
	if err != nil {
		return err
	}
	if len(axes) == 0 {
		if err := cfg.Validate(); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		return a.planTrain(c, cfg, axes)
	}
	if err := p.keep(c.Context, &cfg); err != nil {
		return err
	}
	if len(cfg.Data) > 0 {
		if err := checkData(cfg.DataHere(), datasets.DefaultOptions()); err != nil {
			return err
		}
	}
	if len(axes) > 0 {
		return a.sweep(c, cfg, axes, out)
	}
	result, err := a.runTrain(c.Context, cfg, a.engines(runtimeOptionsFrom(c)))
	if err != nil {
		return err
	}
	if err := out.push(c.Context); err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	printTrain(a.stdout, result)
	return nil
}

// trainOut makes the work folder of an --out that is a URL: from here on that is --out.
func (a *app) trainOut(c *cli.Context, p *places) (*destination, error) {
	place := c.String("out")
	out, err := p.out(c.Context, &place, runOutput)
	if err != nil || place == c.String("out") {
		return out, err
	}
	return out, c.Set("out", place)
}

// keep brings what the settings of a training name by URL to this machine; the settings
// go on naming the URLs, which are written down.
func (p *places) keep(ctx context.Context, cfg *pipeline.TrainConfig) error {
	cfg.Folders = map[string][]string{}
	for _, place := range append([]string{cfg.Cache}, cfg.Data...) {
		if !store.IsURL(place) {
			continue
		}
		paths, err := p.fetch(ctx, place, store.FetchOptions{})
		if err != nil {
			return err
		}
		cfg.Folders[place] = paths
	}
	if model := cfg.Model; store.IsURL(model) {
		if err := p.model(ctx, &model, cfg.ModelFile); err != nil {
			return err
		}
		cfg.Folders[cfg.Model] = []string{model}
	}
	return nil
}

func (a *app) runTrain(ctx context.Context, cfg pipeline.TrainConfig, engines pipeline.Engines) (pipeline.TrainResult, error) {
	p := newProgress(a.stderr)
	defer p.end()
	return pipeline.Train(ctx, cfg, engines, p.report)
}

// engines opens head engines by name; the runtime is opened by the first thing
// that needs it.
func (a *app) engines(opt runtimeOptions) pipeline.Engines {
	var rt pipeline.Runtime
	open := func() (_ pipeline.Runtime, err error) {
		if rt == nil {
			rt, err = a.rt(opt)
		}
		return rt, err
	}
	head := func(name string, v *models.Vocabulary) (models.Engine, error) {
		if name == "gonum" {
			return models.NewGonum(v), nil
		}
		rt, err := open()
		if err != nil {
			return nil, err
		}
		return rt.OpenEngine(v)
	}
	return pipeline.Engines{Head: head, Runtime: open}
}

func printTrain(w io.Writer, r pipeline.TrainResult) {
	if r.ResumedAt == r.Steps {
		fmt.Fprintf(w, "nothing left to do: the run had its %s steps\n", thousands(r.Steps))
	} else {
		fmt.Fprintf(w, "trained %s steps on %s pairs in %.1f s (%s tokens/s)\n", thousands(r.Steps-r.ResumedAt), thousands(r.TrainPairs),
			r.Seconds, thousands(int64(r.TokensPerSecond)))
	}
	if r.HeldOutPairs > 0 {
		fmt.Fprintf(w, "%-22s %10s %10s\n", fmt.Sprintf("held out %s pairs", thousands(r.HeldOutPairs)), "before", "after")
		for _, name := range []string{"loss", "rewards/accuracies", "rewards/margins", "logps/accuracies", "kl"} {
			before := fixed(r.Before.Get(name), 4)
			if name == "rewards/accuracies" {
				before = "-" // of rewards that are all 0 but for rounding
			}
			fmt.Fprintf(w, "  %-20s %10s %10s\n", name, before, fixed(r.After.Get(name), 4))
		}
	}
	printAlarms(w, r.Alarms)
	if r.StoppedEarly {
		fmt.Fprintf(w, "stopped early: %s did not become better\n", r.BestMetric)
	}
	if r.CheckpointStep != r.Steps {
		fmt.Fprintf(w, "checkpoint %s (step %s, the best: %s %s)\n", r.Checkpoint, thousands(r.CheckpointStep), r.BestMetric,
			fixed(r.BestCheckpoints[0].Value, 4))
	} else {
		fmt.Fprintf(w, "checkpoint %s\n", r.Checkpoint)
	}
	if r.CheckpointStep == r.Steps && len(r.BestCheckpoints) > 0 && r.BestCheckpoints[0].Step != r.Steps {
		fmt.Fprintf(w, "best       %s (step %s, %s %s)\n", r.Best, thousands(r.BestCheckpoints[0].Step), r.BestMetric,
			fixed(r.BestCheckpoints[0].Value, 4))
	}
	fmt.Fprintf(w, "report     %s\n", filepath.Join(r.Out, pipeline.ReportName))
}
