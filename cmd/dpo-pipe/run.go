package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/store"
)

const runExample = `Does all that a job file says: reference pass, training, evaluation, gates, export,
publishing. What has not changed since an earlier run is not done again; a run that
was interrupted goes on where it stopped. docs/jobs.md explains every key.

  dpo-pipe run job.yaml
  dpo-pipe run job.yaml --dry-run
  dpo-pipe run job.yaml --max-duration 2h --log-format json
  dpo-pipe run --schema > job.schema.json`

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "do all that a job file says, unattended", ArgsUsage: "JOB.yaml",
		Description: runExample, Action: a.runJob,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be computed, reused and skipped, and why; write nothing"},
			&cli.DurationFlag{Name: "max-duration", Usage: "stop after `TIME` (90m, 2h) with a checkpoint; the next start goes on", DefaultText: "no limit"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "how stderr tells what is done: text or json"},
			&cli.BoolFlag{Name: "schema", Usage: "print the JSON schema of job files"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		},
	}
}

func (a *app) runJob(c *cli.Context) error {
	if c.Bool("schema") {
		return a.printJSON(job.Schema(a.aboutKey))
	}
	path, err := jobFile(c)
	if err != nil {
		return err
	}
	opt, end, err := a.jobOptions(c)
	if err != nil {
		return err
	}
	defer end()
	cfg, err := job.Load(path, os.LookupEnv)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return a.planJob(c, cfg, opt, end)
	}
	result, err := job.Run(c.Context, cfg, opt)
	end()
	if !is[*job.BusyError](err) { // which is no end of a run
		a.tell(c.Context, &cfg, &result, err, slog.New(opt.Log))
	}
	if result.ID != "" {
		if c.Bool("json") {
			if err := a.printJSON(result); err != nil {
				return err
			}
		} else {
			printJob(a.stdout, &result)
		}
	}
	return err
}

// jobFile is the one argument of run and runs.
func jobFile(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", &usageErr{fmt.Errorf("%s takes one job file, got %d arguments", c.Command.Name, c.NArg())}
	}
	return c.Args().First(), nil
}

// jobOptions wires ONNX Runtime, places and stderr into a job. end takes a line of progress
// off the terminal.
func (a *app) jobOptions(c *cli.Context) (opt job.Options, end func(), err error) {
	d := c.Duration("max-duration")
	if d < 0 || c.IsSet("max-duration") && d == 0 {
		return opt, nil, &pipeline.FieldError{Field: "--max-duration", Value: d, Want: "a time above 0, for example 2h"}
	}
	p := newProgress(a.stderr)
	opt = job.Options{
		MaxDuration: d, Report: p.report, Locate: a.places(c).job,
		OpenRuntime: func(r job.Runtime) (pipeline.Runtime, error) {
			return a.rt(runtimeOptions{r.Library, r.Provider, r.Threads})
		},
		Engines: func(r job.Runtime) pipeline.Engines {
			return a.engines(runtimeOptions{r.Library, r.Provider, r.Threads})
		},
		OpenPlace: func(path string) (job.Place, error) { return a.places(c).openPlace(c.Context, path) },
	}
	switch format := c.String("log-format"); format {
	case "text":
		opt.Log = slog.NewTextHandler(clearing{a.stderr, p}, nil)
	case "json":
		opt.Log = slog.NewJSONHandler(a.stderr, nil)
		a.log = slog.New(opt.Log)
		opt.Report = progressLog(a.log)
	default:
		return opt, nil, &pipeline.FieldError{Field: "--log-format", Value: format, Want: "text or json"}
	}
	return opt, p.end, nil
}

// clearing takes the line of progress away before a line of the log.
type clearing struct {
	w io.Writer
	p *progress
}

func (c clearing) Write(b []byte) (int, error) {
	c.p.end()
	return c.w.Write(b)
}

// progressLog logs progress now and then.
func progressLog(log *slog.Logger) pipeline.Reporter {
	last := time.Now()
	return func(p pipeline.Progress) {
		if time.Since(last) < logEvery {
			return
		}
		last = time.Now()
		log.Info("progress", "stage", p.Stage, "done", p.Done, "total", p.Total, "unit", p.Unit, "note", p.Note)
	}
}

func (a *app) planJob(c *cli.Context, cfg job.Config, opt job.Options, end func()) error {
	a.doing = dryRun
	plan, err := job.MakePlan(c.Context, cfg, opt)
	end()
	if err != nil {
		return err
	}
	plan.Config = redacted(plan.Config, &cfg)
	if c.Bool("json") {
		return a.printJSON(plan)
	}
	if plan.Resumes != "" {
		fmt.Fprintf(a.stdout, "would go on with run %s\n", plan.Resumes)
	} else {
		fmt.Fprintln(a.stdout, "would begin a run")
	}
	printStages(a.stdout, plan.Stages)
	if cost := plan.Cost; cost != nil {
		printDropped(a.stdout, cost.Counts)
		fmt.Fprintf(a.stdout, "  to run %s\n", workText(cost.Work))
	}
	return nil
}

// redacted is the text of a config with its URLs as messages show them.
func redacted(text string, cfg *job.Config) string {
	urls := []string{cfg.Model.Path, cfg.Cache.Out, cfg.Publish.To, cfg.Runs.Path}
	for _, sources := range [][]job.Source{cfg.Data, cfg.Evaluation.Pairs} {
		for _, s := range sources {
			urls = append(urls, s.Path)
		}
	}
	for _, url := range urls {
		if store.IsURL(url) {
			text = strings.ReplaceAll(text, url, store.Redact(url))
		}
	}
	return text
}

func printJob(w io.Writer, r *job.Result) {
	fmt.Fprintf(w, "run %s: %s (%.1f s)\n", r.ID, r.Status, r.Seconds)
	printStages(w, r.Stages)
	printAlarms(w, r.Alarms)
}

func printStages(w io.Writer, stages []job.Stage) {
	for _, s := range stages {
		fmt.Fprintf(w, "  %-11s %-8s %s\n", s.Name, s.Action, s.Text)
	}
}

// aboutKey is what the flag says that sets what a key of a job file sets.
func (a *app) aboutKey(key string) string {
	for _, c := range a.commands() {
		for _, f := range c.Flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if ok && job.FlagKey(c.Name, f.Names()[0]) == key {
				return doc.GetUsage()
			}
		}
	}
	return ""
}
