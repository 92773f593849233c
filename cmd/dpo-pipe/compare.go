package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const compareExample = `Completes the same prompts with two model folders, greedily, one above the other.

  dpo-pipe compare --model ./model --policy ./policy --prompt 'Once upon a time'`

func (a *app) compareCommand() *cli.Command {
	return &cli.Command{
		Name: "compare", Usage: "complete prompts with reference and policy", Description: compareExample,
		Action: a.compare,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "reference model `FOLDER`"},
			&cli.StringFlag{Name: "model-file", Usage: "the .onnx `FILE` to take in it"},
			&cli.StringFlag{Name: "policy", Usage: "policy model `FOLDER`, as export writes it"},
			&cli.StringSliceFlag{Name: "prompt", Usage: "`TEXT` to complete; may be repeated"},
			&cli.IntFlag{Name: "max-tokens", Value: 60, Usage: "most tokens of a completion"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
		}, runtimeFlags()...),
	}
}

func (a *app) compare(c *cli.Context) error {
	cfg := pipeline.CompareConfig{
		Model: c.String("model"), Policy: c.String("policy"), Prompts: c.StringSlice("prompt"), MaxTokens: c.Int("max-tokens"),
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	if file := c.String("model-file"); file != "" {
		model, err := pipeline.FindModel(cfg.Model, file)
		if err != nil {
			return err
		}
		cfg.Model = model.ONNX
	}
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	all, err := pipeline.Compare(c.Context, cfg, rt)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(all)
	}
	for _, one := range all {
		printComparison(a.stdout, one)
	}
	return nil
}

func printComparison(w io.Writer, c pipeline.Comparison) {
	fmt.Fprintf(w, "\n   %s\n", strings.ReplaceAll(c.Prompt, "\n", "\n   "))
	fmt.Fprintf(w, "     reference  %s\n     policy     %s\n", strings.TrimSpace(c.Reference), strings.TrimSpace(c.Policy))
}
