package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const reportExample = `Writes report.html in a run folder again, from its metrics so far: while it trains,
or after a kill. train writes it where it ends or is interrupted. Of a sweep's folder
it writes the report of the sweep.

  dpo-pipe report ./run
  dpo-pipe report s3://bucket/runs/1`

func (a *app) reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "write the report of a run or sweep again", ArgsUsage: "RUN",
		Description: reportExample, Action: a.report,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
	}
}

func (a *app) report(c *cli.Context) error {
	if c.NArg() != 1 {
		return &usageErr{fmt.Errorf("report takes one folder of a run or sweep, got %d arguments", c.NArg())}
	}
	run := c.Args().First()
	out, err := a.places(c).within(c.Context, "RUN", &run)
	if err != nil {
		return err
	}
	defer out.close()
	write := func() error { return pipeline.WriteReport(c.Context, run) }
	if pipeline.IsSweep(run) {
		write = func() error { return pipeline.WriteSweepReport(run) }
	}
	if err := write(); err != nil {
		return err
	}
	if err := out.push(c.Context); err != nil {
		return err
	}
	path := filepath.Join(run, pipeline.ReportName)
	if c.Bool("json") {
		return a.printJSON(map[string]string{"report": path})
	}
	_, err = fmt.Fprintf(a.stdout, "report %s\n", path)
	return err
}
