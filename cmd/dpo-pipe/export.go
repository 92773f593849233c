package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

const exportExample = `Writes a complete model folder with the trained head inside (and the PEFT adapter
beside it), then runs it on held-out pairs and refuses to leave it there if its
log-probs are not the head's.

  dpo-pipe export --checkpoint ./run/best --model ./model --out ./policy`

func (a *app) exportCommand() *cli.Command {
	d := pipeline.DefaultExportConfig()
	return &cli.Command{
		Name: "export", Usage: "write the policy as an ONNX model folder, verified", Description: exportExample,
		Action: a.export,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "checkpoint", Usage: "checkpoint `FOLDER`, for example RUN/last or RUN/best"},
			&cli.StringFlag{Name: "model", Usage: "the model `FOLDER` that the cache was made from"},
			&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in it"},
			&cli.StringFlag{Name: "out", Usage: "policy `FOLDER` to write"},
			&cli.StringFlag{Name: "cache", Usage: "reference cache `FOLDER` with the pairs to verify on", DefaultText: "the run's"},
			&cli.IntFlag{Name: "verify-pairs", Value: d.VerifyPairs, Usage: "held-out pairs to verify on"},
			&cli.StringFlag{Name: "engine", Value: d.Engine, Usage: "who multiplies the head's matrices: ort or gonum"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

func (a *app) export(c *cli.Context) error {
	cfg := pipeline.DefaultExportConfig()
	cfg.Checkpoint, cfg.Model, cfg.ModelFile = c.String("checkpoint"), c.String("model"), c.String("model-file")
	cfg.Out, cfg.Cache, cfg.VerifyPairs, cfg.Engine = c.String("out"), c.String("cache"), c.Int("verify-pairs"), c.String("engine")
	if err := cfg.Validate(); err != nil {
		return err
	}
	out, err := a.exportPlaces(c, &cfg)
	if err != nil {
		return err
	}
	defer out.close()
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	result, err := a.runExport(c.Context, cfg, rt)
	if err != nil {
		return err
	}
	if err := out.push(c.Context); err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	printExport(a.stdout, result)
	return nil
}

// exportPlaces brings what is at URLs to this machine, the cache that the checkpoint names
// included.
func (a *app) exportPlaces(c *cli.Context, cfg *pipeline.ExportConfig) (*destination, error) {
	p := a.places(c)
	if err := p.in(c.Context, &cfg.Checkpoint); err != nil {
		return nil, err
	}
	if cfg.Cache == "" {
		trained, err := pipeline.CheckpointCache(cfg.Checkpoint)
		if err != nil {
			return nil, err
		}
		if store.IsURL(trained) {
			cfg.Cache = trained
		}
	}
	if err := p.in(c.Context, &cfg.Cache); err != nil {
		return nil, err
	}
	if err := p.model(c.Context, &cfg.Model, cfg.ModelFile); err != nil {
		return nil, err
	}
	return p.out(c.Context, &cfg.Out, policyOutput)
}

func (a *app) runExport(ctx context.Context, cfg pipeline.ExportConfig, rt pipeline.Runtime) (pipeline.ExportResult, error) {
	p := newProgress(a.stderr)
	defer p.end()
	return pipeline.Export(ctx, cfg, rt, p.report)
}

func printExport(w io.Writer, r pipeline.ExportResult) {
	fmt.Fprintf(w, "exported %s (head as %s)\n", r.Out, r.Form)
	v := r.Verified
	fmt.Fprintf(w, "verified on %s tokens of %d held-out pairs: log-probs differ from the head's by at most %.1e nats a token\n",
		thousands(v.Tokens), v.Pairs, v.MaxDiff)
	fmt.Fprintf(w, "  (allowed %.0e", v.Tolerance)
	if v.FeatureDType != refcache.None {
		fmt.Fprintf(w, "; rounding cached features to %s moves them by at most %.1e", v.FeatureDType, v.MaxRounding)
	}
	fmt.Fprintln(w, ")")
}
