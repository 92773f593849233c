package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/publish"
)

const versionsExample = `Lists the versions of a published policy, the oldest first; * is the current one.
Those whose description is damaged come last, with what is wrong.

  dpo-pipe versions ./policies`

func (a *app) versionsCommand() *cli.Command {
	return &cli.Command{
		Name: "versions", Usage: "list the versions of a published policy", ArgsUsage: "PLACE",
		Description: versionsExample, Action: a.versions,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}},
	}
}

// published is what versions prints.
type published struct {
	Place    string            `json:"place"`
	Current  string            `json:"current"` // "" where there is none
	Versions []publish.Version `json:"versions"`
}

func (a *app) versions(c *cli.Context) error {
	p, err := placeFrom(c)
	if err != nil {
		return err
	}
	r := published{Place: c.Args().First()}
	if r.Versions, err = p.Versions(); err != nil {
		return err
	}
	r.Current, _, _, err = p.Current()
	if err != nil && !is[*publish.PlaceError](err) {
		return err
	}
	// Who is to name one of them sees them beside the error.
	if c.Bool("json") {
		return errors.Join(a.printJSON(r), err)
	}
	printVersions(a.stdout, r)
	return err
}

func printVersions(w io.Writer, r published) {
	if len(r.Versions) == 0 {
		fmt.Fprintf(w, "nothing is published in %s\n", r.Place)
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range r.Versions {
		mark := " "
		if v.Name == r.Current {
			mark = "*"
		}
		if v.Damage != "" {
			fmt.Fprintf(table, "%s %s\t-\t-\tdamaged: %s\n", mark, v.Name, pipeline.Visible(v.Damage))
			continue
		}
		var notes []string
		if v.Withdrawn {
			notes = append(notes, "withdrawn")
		}
		for _, key := range slices.Sorted(maps.Keys(v.Meta)) {
			notes = append(notes, pipeline.Visible(key+"="+v.Meta[key]))
		}
		fmt.Fprintf(table, "%s %s\t%s\t%s\t%s\n", mark, v.Name, v.Time.Format(time.DateTime), bytesText(v.Bytes()),
			cmp.Or(strings.Join(notes, " "), "-"))
	}
	table.Flush() // as little can fail as in Fprintf above
}
