package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

const compareExample = `Completes the same prompts with two model folders, one above the other: greedily,
or sampled where --temperature is given. Both models draw the same numbers.

Where the model has a chat template, a prompt is a user's message; --chat-template none
gives it as it is. Preference pairs are read as precompute-ref reads them, and the
prompts of a run are what it was trained on.

  dpo-pipe compare --model ./model --policy ./policy --prompt 'Once upon a time'
  dpo-pipe compare --model ./model --policy ./policy --held-out ./run --temperature 0.8
  dpo-pipe compare --model ./model --policy ./policy --held-out ./run --report ./run`

func (a *app) compareCommand() *cli.Command {
	d := pipeline.DefaultCompareConfig()
	return &cli.Command{
		Name: "compare", Usage: "complete prompts with reference and policy", Description: compareExample,
		Action: a.compare,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "reference model `FOLDER`"},
			&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in it"},
			&cli.StringFlag{Name: "policy", Usage: "policy model `FOLDER`, as export writes it"},
			&cli.StringSliceFlag{Name: "prompt", Usage: "`TEXT` to complete; may be repeated"},
			&cli.StringFlag{Name: "prompts", Usage: "data `FILE` whose prompts to complete (completions beside them may be left out), or a .txt file of one a line"},
			&cli.StringFlag{Name: "held-out", Usage: "run `FOLDER` whose held-out prompts to complete"},
			&cli.StringFlag{Name: "chat-template", Value: d.ChatTemplate, Usage: "auto (the model's), none, or a Jinja `FILE`"},
			&cli.IntFlag{Name: "limit", Value: d.Limit, Usage: "most prompts of a file or run"},
			&cli.IntFlag{Name: "max-tokens", Value: d.MaxTokens, Usage: "most tokens of a completion"},
			&cli.Float64Flag{Name: "temperature", Value: d.Sampling.Temperature, Usage: "divides the logits; 0 takes the likeliest token"},
			&cli.IntFlag{Name: "top-k", Value: d.Sampling.TopK, Usage: "sample from the `K` likeliest tokens", DefaultText: "all"},
			&cli.Float64Flag{Name: "top-p", Value: d.Sampling.TopP, Usage: "sample from the fewest tokens of this probability together"},
			&cli.Uint64Flag{Name: "seed", Value: d.Sampling.Seed, Usage: "of sampling"},
			&cli.StringFlag{Name: "report", Usage: "put the completions into the report of this run `FOLDER`"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

func compareConfigFrom(c *cli.Context) pipeline.CompareConfig {
	cfg := pipeline.DefaultCompareConfig()
	cfg.Model, cfg.ModelFile, cfg.Policy = c.String("model"), c.String("model-file"), c.String("policy")
	cfg.Prompts, cfg.File, cfg.Run = c.StringSlice("prompt"), c.String("prompts"), c.String("held-out")
	cfg.Limit, cfg.MaxTokens = c.Int("limit"), c.Int("max-tokens")
	cfg.ChatTemplate, cfg.Report = c.String("chat-template"), c.String("report")
	cfg.Sampling = pipeline.Sampling{
		Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), Seed: c.Uint64("seed"),
	}
	return cfg
}

func (a *app) compare(c *cli.Context) error {
	cfg := compareConfigFrom(c)
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := a.comparePlaces(c, &cfg); err != nil {
		return err
	}
	out, err := a.places(c).within(c.Context, "--report", &cfg.Report)
	if err != nil {
		return err
	}
	defer out.close()
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	var typed pipeline.Typing
	if !c.Bool("json") {
		typed = typing(a.stdout)
	}
	all, err := pipeline.Compare(c.Context, cfg, rt, typed)
	if err != nil {
		return err
	}
	if err := out.push(c.Context); err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(all)
	}
	if cfg.Report == "" {
		return nil
	}
	_, err = fmt.Fprintf(a.stdout, "\nreport %s\n", filepath.Join(cfg.Report, pipeline.ReportName))
	return err
}

// comparePlaces brings what is at URLs to this machine, the cache that a run names included.
func (a *app) comparePlaces(c *cli.Context, cfg *pipeline.CompareConfig) error {
	p := a.places(c)
	if err := p.model(c.Context, &cfg.Model, cfg.ModelFile); err != nil {
		return err
	}
	if err := p.model(c.Context, &cfg.Policy, ""); err != nil {
		return err
	}
	if err := p.in(c.Context, &cfg.Run, &cfg.File, &cfg.ChatTemplate); err != nil || cfg.Run == "" {
		return err
	}
	run, err := pipeline.LoadRunConfig(cfg.Run)
	if err != nil || !store.IsURL(run.Cache) {
		return err
	}
	cfg.Cache = run.Cache
	return p.in(c.Context, &cfg.Cache)
}

// typing writes comparisons as they come: the prompt, then each completion
// behind the name of who wrote it, from its first word on.
func typing(w io.Writer) pipeline.Typing {
	named, begun := false, false
	return func(who, piece string) {
		piece = pipeline.Visible(piece) // a model may write escape sequences
		if who == "prompt" {
			fmt.Fprintf(w, "\n   %s\n", strings.ReplaceAll(piece, "\n", "\n   "))
			return
		}
		if !named {
			fmt.Fprintf(w, "     %-11s", who)
			named = true
		}
		if piece == "" {
			fmt.Fprintln(w)
			named, begun = false, false
			return
		}
		if !begun {
			piece = strings.TrimLeft(piece, " \n")
		}
		begun = begun || piece != ""
		fmt.Fprint(w, strings.ReplaceAll(piece, "\n", "\n                "))
	}
}
