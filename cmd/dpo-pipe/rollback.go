package main

import (
	"cmp"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/publish"
)

const rollbackExample = `Makes an earlier version of a published policy current again: the one before, or the
one named with --to. Its files are verified first; versions newer than it are withdrawn,
so that neither a job nor a later rollback brings them back. --to may also name a withdrawn
version, to go forward again.

  dpo-pipe rollback ./policies --dry-run
  dpo-pipe rollback ./policies --to 2026-11-26`

func (a *app) rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "make an earlier version of a published policy current", ArgsUsage: "PLACE",
		Description: rollbackExample, Action: a.rollback,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "`VERSION` to go to", DefaultText: "the newest older one that was not withdrawn"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, having verified it"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		},
	}
}

// rolledBack is what rollback did, or would do.
type rolledBack struct {
	Place  string `json:"place"`
	From   string `json:"from"`
	To     string `json:"to"`
	DryRun bool   `json:"dry_run"`
}

func (a *app) rollback(c *cli.Context) error {
	p, err := placeFrom(c)
	if err != nil {
		return err
	}
	r := rolledBack{Place: c.Args().First(), DryRun: c.Bool("dry-run")}
	if r.DryRun {
		r.From, r.To, err = p.RollbackPlan(c.Context, c.String("to"))
	} else {
		r.From, r.To, err = p.Rollback(c.Context, c.String("to"))
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(r)
	}
	from := cmp.Or(r.From, "no version")
	switch {
	case r.From == r.To:
		fmt.Fprintf(a.stdout, "%s is at %s already\n", r.Place, r.To)
	case r.DryRun:
		fmt.Fprintf(a.stdout, "would roll back %s from %s to %s\n", r.Place, from, r.To)
	default:
		fmt.Fprintf(a.stdout, "rolled back %s from %s to %s\n", r.Place, from, r.To)
	}
	return nil
}

// placeFrom opens the place that is a command's argument.
func placeFrom(c *cli.Context) (*publish.Place, error) {
	if c.NArg() != 1 {
		return nil, &usageErr{fmt.Errorf("%s takes one place, got %d arguments", c.Command.Name, c.NArg())}
	}
	return publish.Open(c.Args().First())
}
