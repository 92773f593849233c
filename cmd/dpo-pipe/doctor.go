package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const doctorExample = `Says whether this machine can run dpo-pipe: the ONNX Runtime library and where it
was found, providers, cores, and a short self-test.

  dpo-pipe doctor`

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check this machine", Description: doctorExample, Action: a.doctor,
		Flags: append([]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}}, runtimeFlags()...),
	}
}

// diagnosis is what doctor finds out.
type diagnosis struct {
	Version    string   `json:"version"`
	Go         string   `json:"go"`
	Platform   string   `json:"platform"`
	Cores      int      `json:"cores"`
	Library    string   `json:"library"`
	FoundBy    string   `json:"found_by"`
	ORTVersion string   `json:"ort_version"`
	Providers  []string `json:"providers"`
	Provider   string   `json:"provider"`
	SelfTest   float64  `json:"self_test_seconds"`
}

// doctorRuntime is what doctor asks of a runtime.
type doctorRuntime interface {
	pipeline.Runtime
	describe() (library, foundBy, version string, providers []string)
	// selfTest multiplies matrices with a known product and returns the time of one product.
	selfTest(ctx context.Context) (time.Duration, error)
}

func (a *app) doctor(c *cli.Context) error {
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	d := diagnosis{
		Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Cores: runtime.GOMAXPROCS(0), Provider: c.String("provider"),
	}
	probe, ok := rt.(doctorRuntime)
	if !ok {
		return fmt.Errorf("the runtime can't be examined")
	}
	d.Library, d.FoundBy, d.ORTVersion, d.Providers = probe.describe()
	took, err := probe.selfTest(c.Context)
	if err != nil {
		return err
	}
	d.SelfTest = took.Seconds()
	if c.Bool("json") {
		return a.printJSON(d)
	}
	fmt.Fprintf(a.stdout, "dpo-pipe      %s (%s, %s, %d cores)\n", d.Version, d.Go, d.Platform, d.Cores)
	fmt.Fprintf(a.stdout, "ONNX Runtime  %s\n  library     %s (found by: %s)\n  providers   %s\n", d.ORTVersion, d.Library, d.FoundBy,
		strings.Join(d.Providers, ", "))
	fmt.Fprintf(a.stdout, "self-test     right on %s (%.2g s a product)\n", d.Provider, d.SelfTest)
	return nil
}
