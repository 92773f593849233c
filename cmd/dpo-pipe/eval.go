package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const evalExample = `Scores the held-out pairs of a cache under a checkpoint. The pairs held out are
those that training held out; --all takes every pair, for example of a cache made
from an evaluation set. Intervals hold 95 % of 1,000 bootstrap resamples of the
prompts; memory does not grow with the pairs.

  dpo-pipe eval --cache ./cache --checkpoint ./run/best
  dpo-pipe eval --cache ./eval-cache --checkpoint ./run/best --all --json
  dpo-pipe eval --cache ./cache --checkpoint ./run/best --against ./other-run/best
  dpo-pipe eval --cache ./cache --checkpoint ./run/best --data preferences.jsonl`

func (a *app) evalCommand() *cli.Command {
	return &cli.Command{
		Name: "eval", Usage: "score held-out pairs under a checkpoint", Description: evalExample,
		Action: a.eval,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "cache", Usage: "reference cache `FOLDER`"},
			&cli.StringFlag{Name: "checkpoint", Usage: "checkpoint `FOLDER`, for example RUN/last or RUN/best"},
			&cli.StringFlag{Name: "against", Usage: "compare with this checkpoint `FOLDER` on the same pairs"},
			&cli.StringFlag{Name: "model", Usage: "check that the cache was made from this model `FOLDER`; run it where the cache keeps no features", DefaultText: "there, the run's"},
			&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in it"},
			&cli.StringSliceFlag{Name: dataFlag, Usage: "the data files of the cache: tells accuracy by source and score gap"},
			&cli.BoolFlag{Name: "all", Usage: "score every pair, not only those held out"},
			&cli.StringFlag{Name: "engine", Value: "ort", Usage: "who multiplies matrices: ort or gonum"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

func (a *app) eval(c *cli.Context) error {
	cfg := pipeline.EvalConfig{
		Cache: c.String("cache"), Checkpoint: c.String("checkpoint"), Against: c.String("against"),
		Model: c.String("model"), ModelFile: c.String("model-file"), Data: c.StringSlice(dataFlag), All: c.Bool("all"), Engine: c.String("engine"),
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	at := a.places(c)
	if err := at.in(c.Context, &cfg.Cache, &cfg.Checkpoint, &cfg.Against); err != nil {
		return err
	}
	if err := at.data(c.Context, &cfg.Data); err != nil {
		return err
	}
	p := newProgress(a.stderr)
	result, err := pipeline.Evaluate(c.Context, cfg, a.engines(runtimeOptionsFrom(c)), p.report)
	p.end()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	printEval(a.stdout, result)
	return nil
}

func printEval(w io.Writer, r pipeline.EvalResult) {
	which := ""
	if r.HeldOut {
		which = "held-out "
	}
	fmt.Fprintf(w, "%s %spairs, %s chosen and %s rejected tokens, step %s\n", thousands(r.Pairs), which,
		thousands(r.ChosenTokens), thousands(r.RejectedTokens), thousands(r.Step))
	if r.Against != nil {
		printAgainst(w, r.Metrics, r.Against)
	} else {
		printFigures(w, r)
	}
	printAlarms(w, r.Alarms)
}

func printAlarms(w io.Writer, alarms []pipeline.Alarm) {
	for _, a := range alarms {
		fmt.Fprintf(w, "ALARM %s: %s\n", a.Name, a.Text)
	}
}

// printFigures prints every metric with its interval, and accuracy by kinds of pairs.
func printFigures(w io.Writer, r pipeline.EvalResult) {
	fmt.Fprintf(w, "  %-22s %12s %22s\n", "", "", "95 % interval")
	for _, m := range shown(r.Metrics) {
		fmt.Fprintf(w, "  %-22s %12s %22s\n", m.Name, fixed(m.Value, 4), between(r.Intervals.Get(m.Name)))
	}
	printShares(w, r)
}

// printAgainst prints the metrics of two checkpoints, and whether they differ.
func printAgainst(w io.Writer, metrics pipeline.Values, c *pipeline.Against) {
	fmt.Fprintf(w, "against %s, step %s\n", c.Checkpoint, thousands(c.Step))
	fmt.Fprintf(w, "  %-22s %10s %10s %11s %22s\n", "", "this", "against", "difference", "95 % interval")
	for _, m := range shown(metrics) {
		fmt.Fprintf(w, "  %-22s %10s %10s %11s %22s\n", m.Name, fixed(m.Value, 4), fixed(c.Metrics.Get(m.Name), 4),
			fixed(c.Differences.Get(m.Name), 4), between(c.Intervals.Get(m.Name)))
	}
	for _, t := range c.Tests {
		fmt.Fprintf(w, "%s: %s pairs right here alone, %s there alone; by chance with p = %.3g (McNemar, exact)\n",
			t.Metric, thousands(t.Only), thousands(t.OnlyAgainst), t.P)
	}
}

// shown leaves out the share of clamped pairs where there is none.
func shown(metrics pipeline.Values) pipeline.Values {
	return slices.DeleteFunc(slices.Clone(metrics), func(m pipeline.Value) bool { return m.Name == "clamped" && m.Value == 0 })
}

func between(i pipeline.Interval) string { return fixed(i.Low, 4) + " … " + fixed(i.High, 4) }

// shownSources is how many sources fit beside the rest on a screen.
const shownSources = 6

// printShares prints accuracy by length difference and by confidence.
func printShares(w io.Writer, r pipeline.EvalResult) {
	share := func(of string, accuracy float64, pairs int) string {
		return fmt.Sprintf("  %s: %s (%s)", of, fixed(accuracy, 2), thousands(int64(pairs)))
	}
	var lengths, confidences []string
	for _, b := range r.LengthBuckets {
		lengths = append(lengths, share(b.Difference, b.Accuracy, b.Pairs))
	}
	for _, b := range r.Calibration {
		confidences = append(confidences, share(fixed(b.Confidence, 2), b.Accuracy, b.Pairs))
	}
	if len(r.Sources) > 0 {
		fmt.Fprintln(w, "accuracy by source (pairs)")
		for _, s := range r.Sources[:min(shownSources, len(r.Sources))] {
			fmt.Fprintln(w, share(s.Source, s.Accuracy, s.Pairs))
		}
		if more := len(r.Sources) - shownSources; more > 0 {
			fmt.Fprintf(w, "  and %d more, all with --json\n", more)
		}
	}
	if len(r.ScoreGaps) > 0 {
		var gaps []string
		for _, g := range r.ScoreGaps {
			gaps = append(gaps, share(fmt.Sprintf("%.3g to %.3g", g.From, g.To), g.Accuracy, g.Pairs))
		}
		fmt.Fprintln(w, "accuracy by score_chosen - score_rejected (pairs)")
		printRows(w, gaps)
	}
	fmt.Fprintln(w, "accuracy by how many tokens longer the chosen completion is (pairs)")
	printRows(w, lengths)
	fmt.Fprintln(w, "accuracy by confidence σ(|margin|) (pairs)")
	printRows(w, confidences)
}

// printRows prints items, five a line.
func printRows(w io.Writer, items []string) {
	for line := range slices.Chunk(items, 5) {
		fmt.Fprintln(w, strings.Join(line, ""))
	}
}
