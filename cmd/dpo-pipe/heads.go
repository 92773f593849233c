package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/models"
)

const headsExample = `Lists what train --head takes: name, what it makes of a hidden state, how it is exported.

  dpo-pipe heads
  dpo-pipe train --cache ./cache --out ./run --head adapter --rank 64`

func (a *app) headsCommand() *cli.Command {
	return &cli.Command{
		Name: "heads", Usage: "list the policy heads of train", Description: headsExample,
		Action: a.heads,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
	}
}

func (a *app) heads(c *cli.Context) error {
	if c.Bool("json") {
		return a.printJSON(models.Kinds)
	}
	for _, k := range models.Kinds {
		fmt.Fprintf(a.stdout, "%-8s %s\n         %s\n", k.Name, k.Doc, k.Formula)
		if k.Ranked {
			fmt.Fprintln(a.stdout, "         takes --rank, --alpha, --rslora")
		}
		fmt.Fprintf(a.stdout, "         objectives: %s; export: %s\n         %s\n", k.Objectives, k.Export, k.Source)
	}
	return nil
}
