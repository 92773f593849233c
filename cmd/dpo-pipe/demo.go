package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const demoExample = `Runs the whole job on a small language model and a preference data set that are
built into the program: reference pass, training, evaluation, export,
verification; then shows completions of both models side by side.

  dpo-pipe demo
  dpo-pipe demo --out ./my-demo`

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "see the whole job done on a built-in model", Description: demoExample,
		Action: a.demo,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "new `FOLDER` to write", DefaultText: "dpo-pipe-demo, or the first free dpo-pipe-demo-N"},
		}, runtimeFlags()...),
	}
}

// demoRun is one run of the demonstration.
type demoRun struct {
	*app
	rt    pipeline.Runtime
	dir   string
	start time.Time
}

func (d *demoRun) path(name string) string { return filepath.Join(d.dir, name) }

func (a *app) demo(c *cli.Context) error {
	dir, err := demoFolder(c.String("out"))
	if err != nil {
		return err
	}
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	d := &demoRun{app: a, rt: rt, dir: dir, start: time.Now()}
	fmt.Fprintf(a.stdout, "A support desk: its model writes good answers, and curt, evasive and wrong ones.\n"+
		"Preference pairs say which are better. Everything goes to %s\n", dir)
	for _, step := range []func(context.Context) error{d.unpack, d.precompute, d.train, d.export, d.compare} {
		if err := step(c.Context); err != nil {
			return err
		}
	}
	d.next()
	return nil
}

// demoFolder is the named folder, which must be new, or the first free default.
func demoFolder(named string) (string, error) {
	const base = "dpo-pipe-demo"
	switch {
	case named == "":
		dir := base
		for n := 2; taken(dir); n++ {
			dir = fmt.Sprintf("%s-%d", base, n)
		}
		return dir, nil
	case taken(named):
		return "", &pipeline.FieldError{Field: "--out", Value: named, Want: "a new folder; that one exists"}
	}
	return named, nil
}

func taken(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (d *demoRun) unpack(context.Context) error { return demo.WriteTo(d.dir) }

// stage prints a heading with the command that does the same.
func (d *demoRun) stage(n int, what, command string) {
	fmt.Fprintf(d.stdout, "\n%d  %s\n   $ dpo-pipe %s\n", n, what, command)
}

func (d *demoRun) precompute(ctx context.Context) error {
	cfg := pipeline.DefaultPrecomputeConfig()
	cfg.Model, cfg.Data, cfg.Out = d.path(demo.ModelDir), []string{d.path(demo.DataFile)}, d.path("cache")
	d.stage(1, "run the frozen model over the pairs, once",
		fmt.Sprintf("precompute-ref --model %s --data %s --out %s", cfg.Model, cfg.Data[0], cfg.Out))
	result, err := d.runPrecompute(ctx, cfg, d.rt)
	if err != nil {
		return err
	}
	printPrecompute(d.stdout, result)
	return nil
}

// trainConfig is how the demonstration trains.
func (d *demoRun) trainConfig() pipeline.TrainConfig {
	cfg := pipeline.DefaultTrainConfig()
	cfg.Cache, cfg.Out = d.path("cache"), d.path("run")
	cfg.Beta, cfg.Epochs, cfg.EvalFrac, cfg.EvalEvery = 0.5, 3, 0.2, 25
	return cfg
}

func (d *demoRun) train(ctx context.Context) error {
	cfg := d.trainConfig()
	d.stage(2, "train a policy head; a fifth of the prompts is held out",
		fmt.Sprintf("train --cache %s --out %s --beta %g --epochs %d --eval-frac %g --eval-every %d",
			cfg.Cache, cfg.Out, cfg.Beta, cfg.Epochs, cfg.EvalFrac, cfg.EvalEvery))
	result, err := d.runTrain(ctx, cfg, pipeline.Engines{Head: func(_ string, v *models.Vocabulary) (models.Engine, error) { return d.rt.OpenEngine(v) }})
	if err != nil {
		return err
	}
	printTrain(d.stdout, result)
	fmt.Fprintf(d.stdout, "Of prompts it never saw, the reference finds the preferred answer likelier in %.0f %% of the pairs, the policy in %.0f %%.\n",
		100*result.Before.Get("logps/accuracies"), 100*result.After.Get("logps/accuracies"))
	return nil
}

func (d *demoRun) export(ctx context.Context) error {
	cfg := pipeline.DefaultExportConfig()
	cfg.Checkpoint, cfg.Model, cfg.Out = d.path("run/last"), d.path(demo.ModelDir), d.path("policy")
	d.stage(3, "write the policy as an ONNX model and check it",
		fmt.Sprintf("export --checkpoint %s --model %s --out %s", cfg.Checkpoint, cfg.Model, cfg.Out))
	result, err := d.runExport(ctx, cfg, d.rt)
	if err != nil {
		return err
	}
	printExport(d.stdout, result)
	return nil
}

// compare prints what both models answer to prompts of none of the pairs, and puts it
// into the report.
func (d *demoRun) compare(ctx context.Context) error {
	cfg := pipeline.DefaultCompareConfig()
	cfg.Model, cfg.Policy, cfg.Prompts, cfg.Report = d.path(demo.ModelDir), d.path("policy"), demo.Prompts, d.path("run")
	d.stage(4, "the same letters, answered by both models",
		fmt.Sprintf("compare --model %s --policy %s --prompt TEXT --report %s", cfg.Model, cfg.Policy, cfg.Report))
	_, err := pipeline.Compare(ctx, cfg, d.rt, typing(d.stdout))
	return err
}

// next says what to do with one's own model and data.
func (d *demoRun) next() {
	fmt.Fprintf(d.stdout, "\nDone in %.0f s. The policy is in %s; open %s in a browser.\n", time.Since(d.start).Seconds(),
		d.path("policy"), d.path("run/report.html"))
	fmt.Fprintf(d.stdout, "Your own model and preferences next; first, what it would cost:\n"+
		"   $ dpo-pipe precompute-ref --model MODEL_FOLDER --data PREFERENCES.jsonl --out cache --dry-run\n")
}
