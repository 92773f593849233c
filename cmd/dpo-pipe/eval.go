package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const evalExample = `Scores the held-out pairs of a cache under a checkpoint. The pairs held out are
those that training held out.

  dpo-pipe eval --cache ./cache --checkpoint ./run/last`

func (a *app) evalCommand() *cli.Command {
	return &cli.Command{
		Name: "eval", Usage: "score held-out pairs under a checkpoint", Description: evalExample,
		Action: a.eval,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "cache", Usage: "reference cache `FOLDER`"},
			&cli.StringFlag{Name: "checkpoint", Usage: "checkpoint `FOLDER`, for example RUN/last or RUN/best"},
			&cli.BoolFlag{Name: "all", Usage: "score every pair, not only those held out"},
			&cli.StringFlag{Name: "engine", Value: "ort", Usage: "who multiplies matrices: ort or gonum"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

func (a *app) eval(c *cli.Context) error {
	cfg := pipeline.EvalConfig{
		Cache: c.String("cache"), Checkpoint: c.String("checkpoint"), All: c.Bool("all"), Engine: c.String("engine"),
	}
	result, err := pipeline.Evaluate(c.Context, cfg, a.engines(runtimeOptionsFrom(c)))
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
	fmt.Fprintf(w, "%s pairs, step %s\n", thousands(r.Pairs), thousands(r.Step))
	for _, m := range r.Metrics {
		fmt.Fprintf(w, "  %-20s %12s\n", m.Name, fixed(m.Value, 5))
	}
}
