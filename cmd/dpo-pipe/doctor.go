package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

const doctorExample = `Says whether this machine can run dpo-pipe: the ONNX Runtime library and where it
was found, or where it was looked for; providers, cores, and a short self-test.

  dpo-pipe doctor`

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check this machine", Description: doctorExample, Action: a.doctor,
		Flags: append([]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}}, runtimeFlags()...),
	}
}

// diagnosis is what doctor finds out. Library and what follows is empty where none
// can be used.
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
	// Tried lists where a library was looked for in vain.
	Tried []attempt `json:"tried,omitempty"`
	// Error says why this machine can't run ONNX graphs.
	Error string `json:"error,omitempty"`
}

// attempt is one place where a library was looked for, and what was there.
type attempt struct {
	Source string `json:"source"`
	Path   string `json:"path"`
	Error  string `json:"error"`
}

// searchError is an error that lists the places that were tried.
type searchError interface {
	error
	attempts() []attempt
}

// doctorRuntime is what doctor asks of a runtime.
type doctorRuntime interface {
	pipeline.Runtime
	describe() (library, foundBy, version string, providers []string)
	// selfTest multiplies matrices with a known product and returns the time of one product.
	selfTest(ctx context.Context) (time.Duration, error)
}

func (a *app) doctor(c *cli.Context) error {
	d := diagnosis{
		Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Cores: runtime.GOMAXPROCS(0), Provider: c.String("provider"), Providers: []string{},
	}
	err := a.examine(c, &d)
	if err != nil {
		d.Error = err.Error()
	}
	if search, ok := errors.AsType[searchError](err); ok {
		d.Tried = search.attempts()
	}
	if c.Bool("json") {
		return errors.Join(err, a.printJSON(d))
	}
	printDiagnosis(a.stdout, d)
	return err
}

// examine finds out about the runtime.
func (a *app) examine(c *cli.Context, d *diagnosis) error {
	rt, err := a.rt(runtimeOptionsFrom(c))
	if err != nil {
		return err
	}
	probe, ok := rt.(doctorRuntime)
	if !ok {
		return errors.New("the runtime can't be examined")
	}
	d.Library, d.FoundBy, d.ORTVersion, d.Providers = probe.describe()
	took, err := probe.selfTest(c.Context)
	d.SelfTest = took.Seconds()
	return err
}

func printDiagnosis(w io.Writer, d diagnosis) {
	fmt.Fprintf(w, "dpo-pipe      %s (%s, %s, %d cores)\n", d.Version, d.Go, d.Platform, d.Cores)
	if d.Library == "" {
		fmt.Fprintln(w, "ONNX Runtime  none")
		for _, t := range d.Tried {
			fmt.Fprintf(w, "  tried       %s: %s: %s\n", t.Source, t.Path, t.Error)
		}
		return
	}
	fmt.Fprintf(w, "ONNX Runtime  %s\n  library     %s (found by: %s)\n  providers   %s\n", d.ORTVersion, d.Library, d.FoundBy,
		strings.Join(d.Providers, ", "))
	if d.Error != "" {
		fmt.Fprintf(w, "self-test     failed on %s\n", d.Provider)
		return
	}
	fmt.Fprintf(w, "self-test     right on %s (%.2g s a product)\n", d.Provider, d.SelfTest)
}
