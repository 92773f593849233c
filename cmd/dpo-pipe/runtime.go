package main

import (
	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// runtimeOptions say which library runs the graphs, and on what.
type runtimeOptions struct {
	library  string
	provider string
	threads  int
}

// openRuntime opens the runtime; a build without cgo has none.
type openRuntime func(opt runtimeOptions) (pipeline.Runtime, error)

// runtimeFlags are shared by every command that runs ONNX graphs.
func runtimeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "ort-lib", Usage: "the ONNX Runtime library `FILE`",
			DefaultText: "DPO_PIPE_ORT_LIB, beside the executable, the user's cache, the system",
		},
		&cli.StringFlag{Name: "provider", Value: "cpu", Usage: "ONNX Runtime execution provider: cpu, cuda, …"},
		&cli.IntFlag{Name: "threads", Usage: "threads inside one operation", DefaultText: "every core"},
	}
}

func runtimeOptionsFrom(c *cli.Context) runtimeOptions {
	return runtimeOptions{library: c.String("ort-lib"), provider: c.String("provider"), threads: c.Int("threads")}
}
