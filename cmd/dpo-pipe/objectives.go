package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/loss"
)

const objectivesExample = `Lists what train --loss takes: name, formula of a pair's loss, and source.

  dpo-pipe objectives
  dpo-pipe train --cache ./cache --out ./run --loss sigmoid:0.8,bco_pair:0.2,sft:1`

func (a *app) objectivesCommand() *cli.Command {
	return &cli.Command{
		Name: "objectives", Usage: "list the objectives of train", Description: objectivesExample,
		Action: a.objectives,
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
	}
}

func (a *app) objectives(c *cli.Context) error {
	if c.Bool("json") {
		return a.printJSON(loss.List())
	}
	for _, o := range loss.List() {
		var takes []string
		for _, option := range []struct {
			name string
			does bool
		}{{"--label-smoothing", o.Smooths}, {"--f-divergence", o.Scores}} {
			if option.does {
				takes = append(takes, option.name)
			}
		}
		fmt.Fprintf(a.stdout, "%-13s %s\n              %s\n", o.Name, o.Doc, o.Formula)
		if len(takes) > 0 {
			fmt.Fprintf(a.stdout, "              takes %s\n", strings.Join(takes, ", "))
		}
		fmt.Fprintf(a.stdout, "              %s\n", o.Source)
	}
	return nil
}
