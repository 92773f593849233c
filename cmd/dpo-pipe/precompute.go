package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const precomputeExample = `Runs the frozen reference once over the pairs and caches per-token log-probs and
the hidden states that feed the LM head. A pass that was killed goes on where it
stopped when the same command is run again. Paths may be URLs (s3://, gs://, file://).

Where --out holds a finished cache of other data, made otherwise alike, only pairs
that are new or changed are run; the others are taken from it. It is replaced at
once, when all is done. Where that would drop pairs it is refused without --prune.

With --shards N, N processes share the pass, on as many machines as there are, and
--join makes of theirs the cache that one process would have written. They have --out
in common, a folder or a URL, and nothing else.

  dpo-pipe precompute-ref --model ./model --data 'prefs/*.parquet' --out ./cache
  dpo-pipe precompute-ref --model ./model --data prefs.jsonl --out ./cache --dry-run
  dpo-pipe precompute-ref --model ./model --data prefs.jsonl --out ./cache --shards 8 --shard 0
  dpo-pipe precompute-ref --out ./cache --join`

func (a *app) precomputeCommand() *cli.Command {
	def := pipeline.DefaultPrecomputeConfig()
	flags := []cli.Flag{
		&cli.StringFlag{Name: "model", Usage: "model `FOLDER` (model.onnx at its root or under onnx/, tokenizer.json) or .onnx file"},
		&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in the folder"},
		&cli.StringSliceFlag{Name: dataFlag, Usage: "`FILES`, globs and folders of preference pairs (Parquet, Arrow, JSONL, JSON; .gz, .zst), several of them"},
		&cli.StringFlag{Name: "out", Usage: "cache `FOLDER` to write"},
		&cli.IntFlag{Name: "max-length", Value: def.Encode.MaxLength, Usage: "longest prompt and completion together, tokens"},
		&cli.StringFlag{Name: "truncation", Value: string(def.Encode.Truncation), Usage: "what of a longer one is kept: keep_start or keep_end"},
		&cli.StringFlag{Name: "features", Aliases: []string{"feature-dtype"}, Value: string(def.Features), Usage: "how hidden states are stored: " + refcache.DTypeNames + " (train and eval run the model)"},
		&cli.IntFlag{Name: "batch-tokens", Value: def.BatchTokens, Usage: "tokens of one run of the model, padding included"},
		&cli.StringFlag{Name: "memory", Usage: "`BYTES` (512m, 4g) of keys and values kept and copied at once; less means less sharing", DefaultText: "by the machine: " + bytesText(def.Memory)},
		&cli.IntFlag{Name: "part-pairs", Value: def.PartPairs, Usage: "most pairs in one part of the cache, the work a kill can lose"},
		&cli.StringFlag{Name: "chat-template", Value: def.Encode.ChatTemplate, Usage: "auto (the model's), none, or a Jinja `FILE`"},
		&cli.Int64Flag{Name: "limit", Usage: "stop after `N` usable pairs", DefaultText: "all"},
		&cli.BoolFlag{Name: "prune", Usage: "drop from the cache in --out pairs that left the data or changed in it"},
		&cli.BoolFlag{Name: "strict", Usage: "make the first unusable row an error"},
		&cli.Float64Flag{Name: "max-bad-frac", Value: def.MaxBadFrac, Usage: "largest share of unusable rows that is accepted"},
		&cli.BoolFlag{Name: "dry-run", Usage: "count, measure a few batches and estimate, or say what an update of --out would do; write nothing"},
		&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
	}
	flags = append(flags, shardFlags()...)
	flags = append(flags, columnFlags(def.Reading.Columns)...)
	return &cli.Command{
		Name: "precompute-ref", Usage: "run the reference model over preference pairs, once",
		Description: precomputeExample, Flags: append(flags, runtimeFlags()...), Action: a.precompute,
	}
}

// columnFlags rename the columns of the data.
func columnFlags(c datasets.Columns) []cli.Flag {
	column := func(name, value, holds string) cli.Flag {
		return &cli.StringFlag{Name: "column-" + name, Value: value, Usage: "`NAME` of the column with " + holds}
	}
	return []cli.Flag{
		column("prompt", c.Prompt, "prompts"), column("chosen", c.Chosen, "preferred completions"),
		column("rejected", c.Rejected, "the other completions"), column("id", c.ID, "ids of pairs"),
		column("weight", c.Weight, "weights of pairs"), column("score-chosen", c.ScoreChosen, "scores of preferred completions"),
		column("score-rejected", c.ScoreRejected, "scores of the others"), column("source", c.Source, "where pairs are from"),
	}
}

func columnsFrom(c *cli.Context) datasets.Columns {
	return datasets.Columns{
		Prompt: c.String("column-prompt"), Chosen: c.String("column-chosen"), Rejected: c.String("column-rejected"),
		ID: c.String("column-id"), Weight: c.String("column-weight"), Source: c.String("column-source"),
		ScoreChosen: c.String("column-score-chosen"), ScoreRejected: c.String("column-score-rejected"),
	}
}

func precomputeConfigFrom(c *cli.Context) (pipeline.PrecomputeConfig, error) {
	cfg := pipeline.DefaultPrecomputeConfig()
	cfg.Model, cfg.ModelFile = c.String("model"), c.String("model-file")
	cfg.Data = c.StringSlice(dataFlag)
	cfg.Reading.Columns = columnsFrom(c)
	cfg.Out = c.String("out")
	cfg.Encode.MaxLength = c.Int("max-length")
	cfg.Encode.Truncation = encode.Truncation(c.String("truncation"))
	cfg.Encode.ChatTemplate = c.String("chat-template")
	cfg.Features = refcache.DType(c.String("features"))
	cfg.BatchTokens, cfg.PartPairs = c.Int("batch-tokens"), c.Int("part-pairs")
	cfg.Limit, cfg.Strict, cfg.MaxBadFrac = c.Int64("limit"), c.Bool("strict"), c.Float64("max-bad-frac")
	cfg.Prune = c.Bool("prune")
	if text := c.String("memory"); text != "" {
		n, err := pipeline.ParseBytes(text)
		if err != nil {
			return cfg, &pipeline.FieldError{Field: "--memory", Value: text, Want: pipeline.BytesWanted}
		}
		cfg.Memory = n
	}
	err := shardsFrom(c, &cfg)
	return cfg, err
}

func (a *app) precompute(c *cli.Context) error {
	if c.Bool("join") {
		return a.join(c)
	}
	if c.IsSet("keep-shards") {
		return &usageErr{errors.New("--keep-shards is for --join")}
	}
	cfg, err := precomputeConfigFrom(c)
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	out, err := a.precomputePlaces(c, &cfg)
	if err != nil {
		return err
	}
	defer out.close()
	if err := checkData(cfg.Data, cfg.Reading); err != nil {
		return err
	}
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return a.estimate(c.Context, cfg, rt, c.Bool("json"))
	}
	result, err := a.runPrecompute(c.Context, cfg, rt)
	if err != nil {
		return err
	}
	if result.Joined || cfg.Elsewhere != nil {
		err = out.empty() // what is there was made by another process
	} else {
		err = out.push(c.Context)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	printPrecompute(a.stdout, result)
	return nil
}

// precomputePlaces brings what is at URLs to this machine.
func (a *app) precomputePlaces(c *cli.Context, cfg *pipeline.PrecomputeConfig) (*destination, error) {
	p := a.places(c)
	if err := p.model(c.Context, &cfg.Model, cfg.ModelFile); err != nil {
		return nil, err
	}
	if err := p.data(c.Context, &cfg.Data); err != nil {
		return nil, err
	}
	if err := p.in(c.Context, &cfg.Encode.ChatTemplate); err != nil {
		return nil, err
	}
	switch {
	case cfg.Shards == 0:
		return p.out(c.Context, &cfg.Out, cacheOutput)
	case c.Bool("dry-run"):
		return nil, nil // which counts what a new cache costs
	}
	return p.shard(c.Context, cfg)
}

// checkData refuses paths that name no data file before any work is done. What is
// in the files is the stages' business.
func checkData(paths []string, opt datasets.Options) error {
	r, err := datasets.Open(paths, opt)
	if err != nil {
		return &usageErr{err}
	}
	return r.Close()
}

// runPrecompute runs the pass with its progress shown.
func (a *app) runPrecompute(ctx context.Context, cfg pipeline.PrecomputeConfig, rt pipeline.Runtime) (pipeline.PrecomputeResult, error) {
	p := newProgress(a.stderr)
	defer p.end()
	return pipeline.Precompute(ctx, cfg, rt, p.report)
}

func (a *app) estimate(ctx context.Context, cfg pipeline.PrecomputeConfig, rt pipeline.Runtime, asJSON bool) error {
	a.doing = dryRun
	p := newProgress(a.stderr)
	e, err := pipeline.Estimate(ctx, cfg, rt, p.report)
	p.end()
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(e)
	}
	fmt.Fprintf(a.stdout, "would cache %s pairs of %s rows\n", thousands(e.Counts.Kept), thousands(e.Counts.Read))
	if u := e.Update; u != nil {
		fmt.Fprintf(a.stdout, "  update      %s\n", updateText(u))
		if u.Dropped > 0 && !cfg.Prune {
			fmt.Fprintln(a.stdout, "  note: pairs would be dropped, which takes --prune")
		}
	}
	printDropped(a.stdout, e.Counts)
	fmt.Fprintf(a.stdout, "  prompt      %s\n  completion  %s\n", e.PromptLengths, e.CompletionLengths)
	fmt.Fprintf(a.stdout, "  truncated   %s pairs; encoded apart %s\n", thousands(e.Counts.Truncated), thousands(e.Counts.Apart))
	fmt.Fprintf(a.stdout, "  cache size  %s\n", bytesText(e.CacheBytes))
	fmt.Fprintf(a.stdout, "  to run      %s\n", workText(e.Work))
	if e.Update != nil {
		return nil
	}
	fmt.Fprintf(a.stdout, "  time        about %s (%s tokens a second, measured on %d pairs)\n",
		seconds(e.Seconds), thousands(int64(e.TokensPerSecond)), e.Calibrated)
	for _, s := range e.Shards {
		fmt.Fprintf(a.stdout, "  shard %-5d %s pairs in %d parts, %s tokens, about %s\n",
			s.Shard, thousands(s.Pairs), s.Parts, thousands(s.Tokens), seconds(s.Seconds))
	}
	return nil
}

// seconds is a time for people.
func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func printPrecompute(w io.Writer, r pipeline.PrecomputeResult) {
	if r.Shard != nil && r.Parts > 0 && r.Tokens == 0 && r.Resumed == r.Parts {
		fmt.Fprintf(w, "nothing left to do for shard %v: %s has its pairs\n", r.Shard, r.Cache)
		return
	}
	fmt.Fprintf(w, "cached %s pairs of %s rows in %s (%.1f s, %d parts", thousands(r.Counts.Kept), thousands(r.Counts.Read),
		r.Cache, r.Seconds, r.Parts)
	if r.Resumed > 0 {
		fmt.Fprintf(w, ", %d of them from before", r.Resumed)
	}
	fmt.Fprintln(w, ")")
	if u := r.Update; u != nil {
		fmt.Fprintf(w, "  updated     %s\n", updateText(u))
	}
	if r.Tokens > 0 {
		fmt.Fprintf(w, "  ran %s\n", workText(r.Work))
	}
	printDropped(w, r.Counts)
	for _, finding := range r.PassedOver {
		fmt.Fprintf(w, "  note: %s\n", finding)
	}
	if r.Counts.Apart > 0 {
		fmt.Fprintf(w, "  note: %s pairs have no token boundary behind the prompt; prompt and completion were encoded apart\n",
			thousands(r.Counts.Apart))
	}
	if r.Counts.Truncated > 0 {
		fmt.Fprintf(w, "  note: %s pairs were longer than --max-length and truncated\n", thousands(r.Counts.Truncated))
	}
}

// updateText says what becomes of pairs where a cache is brought to other data.
func updateText(u *pipeline.UpdateCounts) string {
	return fmt.Sprintf("%s pairs reused, %s computed, %s dropped", thousands(u.Reused), thousands(u.Computed), thousands(u.Dropped))
}

// workText says what was run of what a pass without sharing would run.
func workText(w pipeline.Work) string {
	return fmt.Sprintf("%s of %s tokens (%.1f %% saved by sharing, %.1f %% padding added)",
		thousands(w.Tokens), thousands(w.SequenceTokens), 100*w.Shared(), 100*w.Padding())
}

// printDropped lists unusable rows by reason with the first few positions.
func printDropped(w io.Writer, counts refcache.Counts) {
	for _, d := range counts.Dropped.Drops {
		fmt.Fprintf(w, "  dropped %s: %s\n", thousands(d.Rows), d.Reason)
		for _, at := range d.First {
			fmt.Fprintf(w, "    %s\n", positionText(at))
		}
	}
}

// positionText says where an unusable row is and what is wrong with it.
func positionText(at datasets.Position) string {
	where := fmt.Sprintf("%s row %d: ", at.File, at.Row)
	if at.Column != "" {
		where += fmt.Sprintf("column %q ", at.Column)
	}
	return where + at.Detail
}
