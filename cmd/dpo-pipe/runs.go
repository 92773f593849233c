package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/job"
)

const runsExample = `Lists the runs of a job, the oldest first: how each ended, its figures on held-out
pairs, how long it took and what had changed.

  dpo-pipe runs job.yaml
  dpo-pipe runs job.yaml --json`

func (a *app) runsCommand() *cli.Command {
	return &cli.Command{
		Name: "runs", Usage: "list the runs of a job", ArgsUsage: "JOB.yaml", Description: runsExample, Action: a.runs,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
	}
}

func (a *app) runs(c *cli.Context) error {
	path, err := jobFile(c)
	if err != nil {
		return err
	}
	where, err := job.LoadRuns(path, os.LookupEnv)
	if err != nil {
		return err
	}
	all, err := a.places(c).history(c.Context, where)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if all == nil {
			all = []*job.Result{}
		}
		return a.printJSON(all)
	}
	printRuns(a.stdout, all)
	return nil
}

func printRuns(w io.Writer, all []*job.Result) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no runs yet")
		return
	}
	fmt.Fprintf(w, "%-19s %-11s %9s %8s %8s %8s %8s  %s\n", "run", "status", "pairs", "new", "dropped", "accuracy", "kl", "took")
	for _, r := range all {
		if r.Status == job.Damaged {
			fmt.Fprintf(w, "%-19s %-11s %9s %8s %8s %8s %8s  -\n  %s\n", r.ID, r.Status, "-", "-", "-", "-", "-", indented(r.Reason))
			continue
		}
		fmt.Fprintf(w, "%-19s %-11s %9s %8s %8s %8s %8s  %.1f s\n", r.ID, r.Status, thousands(r.Pairs), thousands(r.NewPairs),
			thousands(r.DroppedPairs), figureText(r, "rewards/accuracies"), figureText(r, "kl"), r.Seconds)
		if len(r.Changed) > 0 {
			fmt.Fprintf(w, "  changed %s\n", strings.Join(r.Changed, ", "))
		}
		if r.Reason != "" {
			fmt.Fprintf(w, "  %s\n", indented(r.Reason))
		}
	}
}

// indented is a text whose further lines stand under the first.
func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }

// figureText is a held-out figure of a run, "-" where it was not scored.
func figureText(r *job.Result, name string) string {
	if len(r.Metrics) == 0 {
		return "-"
	}
	return fixed(r.Metrics.Get(name), 4)
}
