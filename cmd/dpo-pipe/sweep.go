package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// sweepFlag names a setting of train and its values.
const sweepFlag = "sweep"

// sweepFrom reads the axes of a sweep; on --resume they are those it was started with,
// unless given again. There are none where a single run is asked for.
func sweepFrom(c *cli.Context) ([]pipeline.SweepAxis, error) {
	axes, err := pipeline.ParseSweep(c.StringSlice(sweepFlag))
	if err != nil {
		return nil, err
	}
	for _, axis := range axes {
		if c.IsSet(axis.Key) {
			return nil, &usageErr{fmt.Errorf("--%s and --sweep %s set the same: leave one out", axis.Key, axis.Key)}
		}
	}
	if out := c.String("out"); len(axes) == 0 && c.Bool("resume") && pipeline.IsSweep(out) {
		_, axes, err = pipeline.LoadSweep(out)
	}
	return axes, err
}

func (a *app) sweep(c *cli.Context, cfg pipeline.TrainConfig, axes []pipeline.SweepAxis, out *destination) error {
	p := newProgress(a.stderr)
	result, err := pipeline.Sweep(c.Context, cfg, axes, a.engines(runtimeOptionsFrom(c)), p.report)
	p.end()
	if err != nil {
		return err
	}
	if err := out.push(c.Context); err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	printSweep(a.stdout, &result)
	return nil
}

// planTrain says what train would do; without axes that is one run.
func (a *app) planTrain(c *cli.Context, cfg pipeline.TrainConfig, axes []pipeline.SweepAxis) error {
	plan, err := pipeline.PlanTrain(cfg, axes)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(plan)
	}
	fmt.Fprintf(a.stdout, "would train %s in %s over the cache\n", many(len(plan.Runs), "run"), many(plan.Passes, "pass"))
	for _, name := range plan.Runs {
		fmt.Fprintf(a.stdout, "  %s\n", filepath.Join(plan.Out, name))
	}
	return nil
}

// many is a count with its noun.
func many(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun[len(noun)-1] == 's':
		return thousands(int64(n)) + " " + noun + "es"
	}
	return thousands(int64(n)) + " " + noun + "s"
}

func printSweep(w io.Writer, r *pipeline.SweepResult) {
	fmt.Fprintf(w, "%s in %.1f s\n", many(len(r.Runs), "run"), r.Seconds)
	printSweepTable(w, r)
	if r.Best != "" {
		printAlarms(w, r.Runs[0].Result.Alarms)
		fmt.Fprintf(w, "checkpoint %s\n", r.Checkpoint)
	}
	fmt.Fprintf(w, "report     %s\n", filepath.Join(r.Out, pipeline.ReportName))
}

// printSweepTable prints the ranked runs, and which is the best.
func printSweepTable(w io.Writer, r *pipeline.SweepResult) {
	width := len("held out")
	for _, one := range r.Runs {
		width = max(width, len(one.Name))
	}
	fmt.Fprintf(w, "  %-*s", width, "held out")
	for _, name := range pipeline.SweepColumns {
		fmt.Fprintf(w, "  %*s", max(len(name), figureWidth), name)
	}
	fmt.Fprintln(w)
	for i := range r.Runs {
		printSweepRow(w, &r.Runs[i], width)
	}
	fmt.Fprintln(w, "* no other run is as accurate at as low a KL, and better in one of them")
	if r.Metric != r.Config.BestMetric {
		fmt.Fprintf(w, "the objectives differ, so their losses do not compare: %s ranks the runs\n", r.Metric)
	}
	if r.Best != "" {
		fmt.Fprintf(w, "best       %s (%s %s)\n", filepath.Join(r.Out, r.Best), r.Metric, fixed(r.Runs[0].Get(r.Metric), 4))
	}
}

// figureWidth is that of a column of figures with four digits behind the point.
const figureWidth = 8

func printSweepRow(w io.Writer, one *pipeline.SweepRun, width int) {
	mark := " "
	if one.Front {
		mark = "*"
	}
	fmt.Fprintf(w, "%s %-*s", mark, width, one.Name)
	switch {
	case one.Failed != "":
		fmt.Fprintf(w, "  failed: %s", one.Failed)
	case one.Result == nil:
		fmt.Fprint(w, "  no checkpoint yet")
	case len(one.Result.After) == 0:
		fmt.Fprint(w, "  no held-out pairs scored")
	default:
		for _, name := range pipeline.SweepColumns {
			fmt.Fprintf(w, "  %*s", max(len(name), figureWidth), fixed(one.Get(name), 4))
		}
		if one.Result.StoppedEarly {
			fmt.Fprintf(w, "  stopped early at step %s", thousands(one.Result.Steps))
		}
	}
	fmt.Fprintln(w)
}
