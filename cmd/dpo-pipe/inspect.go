package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const inspectExample = `Says what a path is (reference cache, sweep, run, checkpoint, model folder, data file or
folder of data), its shapes, identity and counts, and shows sample rows.

  dpo-pipe inspect ./cache
  dpo-pipe inspect prefs.parquet --rows 3`

func (a *app) inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "describe a cache, sweep, run, checkpoint, model or data file", ArgsUsage: "PATH",
		Description: inspectExample, Action: a.inspect,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "rows", Value: 2, Usage: "sample rows to show"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, columnFlags(datasets.DefaultColumns())...),
	}
}

func (a *app) inspect(c *cli.Context) error {
	if c.NArg() != 1 {
		return &usageErr{fmt.Errorf("inspect takes one path, got %d arguments", c.NArg())}
	}
	if c.Int("rows") < 0 {
		return &pipeline.FieldError{Field: "--rows", Value: c.Int("rows"), Want: "0 or more"}
	}
	opt := datasets.DefaultOptions()
	opt.Columns = columnsFrom(c)
	path := c.Args().First()
	if err := a.places(c).in(c.Context, &path); err != nil {
		return err
	}
	in, err := pipeline.Inspect(c.Context, path, opt, c.Int("rows"))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(in)
	}
	printInspection(a.stdout, in)
	return nil
}

func printInspection(w io.Writer, in pipeline.Inspection) {
	fmt.Fprintf(w, "%s: %s\n", in.Path, in.Kind)
	switch {
	case in.Cache != nil:
		printCache(w, in.Cache)
	case in.Sweep != nil:
		printSweepInspection(w, in.Sweep)
	case in.Run != nil:
		printRun(w, in.Run)
	case in.Checkpoint != nil:
		printCheckpoint(w, in.Checkpoint)
	case in.Model != nil:
		printModel(w, in.Model)
	case in.Data != nil:
		if len(in.Files) > 1 {
			line(w, "files", "%d, the first: %s", len(in.Files), in.Files[0])
		}
		printData(w, in.Data)
	}
}

// line prints a name and a value, aligned.
func line(w io.Writer, name string, format string, args ...any) {
	fmt.Fprintf(w, "  %-18s %s\n", name, fmt.Sprintf(format, args...))
}

func printCache(w io.Writer, c *pipeline.CacheDescription) {
	for _, l := range c.Lines() {
		line(w, l[0], "%s", l[1])
	}
	for _, r := range c.Sample {
		line(w, "pair "+r.ID[:8], "%d prompt tokens, %d chosen (%.2f nats), %d rejected (%.2f nats), weight %g",
			r.PromptTokens, r.ChosenTokens, r.ChosenLogps, r.RejectedTokens, r.RejectedLogps, r.Weight)
	}
}

func printRun(w io.Writer, r *pipeline.RunDescription) {
	c := r.Config
	line(w, "cache", "%s", c.Cache)
	line(w, "head", "%s, rank %d, alpha %g", c.Head, c.Rank, c.Alpha)
	line(w, "objective", "%s, beta %g, label smoothing %g", c.Loss, c.Beta, c.LabelSmoothing)
	line(w, "optimizer", "lr %g, %s, warm-up %g, %d pairs a step, %d epochs, seed %d",
		c.LR, c.Schedule, c.Warmup, c.BatchPairs, c.Epochs, c.Seed)
	line(w, "held out", "%g of the prompts", c.EvalFrac)
	line(w, "checkpoints", "steps %v", r.Checkpoints)
}

func printSweepInspection(w io.Writer, s *pipeline.SweepResult) {
	line(w, "cache", "%s", s.Config.Cache)
	for _, axis := range s.Axes {
		line(w, "sweeps "+axis.Key, "%s", strings.Join(axis.Values, "; "))
	}
	printSweepTable(w, s)
}

func printCheckpoint(w io.Writer, c *pipeline.CheckpointDescription) {
	line(w, "head", "%s, rank %d, alpha %g, for a [%d,%d] LM head", c.Head, c.Rank, c.Alpha, c.V, c.D)
	line(w, "base model", "%s", c.BaseModel)
	if c.Step > 0 {
		line(w, "step", "%d", c.Step)
	}
	for _, v := range c.Held {
		line(w, "held out "+v.Name, "%.5f", v.Value)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Identity)) {
		line(w, "identity "+key, "%s", c.Identity[key])
	}
}

func printModel(w io.Writer, m *pipeline.ModelDescription) {
	line(w, "file", "%s", m.File)
	line(w, "sha256", "%s", m.SHA256)
	tied := ""
	if m.Tied {
		tied = ", tied to the input embedding"
	}
	line(w, "LM head", "[%d,%d] %s, %s%s", m.V, m.D, m.DType, m.Head, tied)
	line(w, "KV cache", "%d layers", m.Layers)
	line(w, "inputs", "%s", strings.Join(m.Inputs[:min(len(m.Inputs), 6)], ", "))
	line(w, "nodes", "%d", m.Nodes)
}

func printData(w io.Writer, d *datasets.Description) {
	format := d.Format
	if d.Compression != "" {
		format += ", " + d.Compression
	}
	if d.Rows >= 0 {
		format += fmt.Sprintf(", %s rows", thousands(d.Rows))
	}
	line(w, "format", "%s", format)
	for _, col := range d.Columns {
		line(w, "column "+col.Name, "%s", col.Type)
	}
	line(w, "layout", "%s (of %d rows looked at)", strings.Join(d.Layouts, "; "), d.Looked)
	for _, drop := range d.Dropped.Drops {
		line(w, "unusable", "%s %s, first: %s", thousands(drop.Rows), drop.Reason, positionText(drop.First[0]))
	}
	for _, p := range d.Sample {
		fmt.Fprintf(w, "  row %d  id %s\n", p.FileRow, p.ID)
		for _, t := range []struct {
			name string
			text datasets.Text
		}{{"prompt", p.Prompt}, {"chosen", p.Chosen}, {"rejected", p.Rejected}} {
			fmt.Fprintf(w, "    %-9s %s\n", t.name, excerpt(t.text))
		}
	}
}

// excerptRunes is how much of a text a sample row shows.
const excerptRunes = 100

// excerpt is the beginning of a text on one line.
func excerpt(t datasets.Text) string {
	text := t.Plain
	for _, m := range t.Messages {
		text += m.Role + ": " + m.Content + " "
	}
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > excerptRunes {
		return string(runes[:excerptRunes]) + " …"
	}
	return string(runes)
}
