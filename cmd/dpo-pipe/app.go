package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// app holds what every command writes to.
type app struct {
	stdout, stderr io.Writer
	rt             openRuntime
	// doing is the command that runs.
	doing string
	// at is where URLs of the command are on this machine, nil where it took no paths.
	at *places
	// log takes errors where stderr is a log of JSON; nil elsewhere.
	log *slog.Logger
}

// run is the whole program: it parses args (args[0] is the program's name),
// runs the command and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr, rt: newRuntime}
	commands := a.cli()
	args, err := arrange(commands, args)
	if err == nil {
		err = commands.RunContext(ctx, args)
	}
	if err == nil {
		return exitDone
	}
	return a.fail(ctx, err)
}

const description = `dpo-pipe aligns a language model to preference data without Python, PyTorch or a
GPU. It runs the frozen ONNX model once over the pairs (precompute-ref), trains
a small policy head against what that left behind (train), and writes a PEFT
adapter and a verified ONNX model (export). See it work: dpo-pipe demo

Results go to stdout, progress and messages to stderr.

Exit codes: 0 done, 1 failed, 2 usage or settings, 3 environment (library,
provider, disk), 4 data refused, 5 quality gate not met, 6 time up (run
--max-duration; start again to go on), 75 another run of the job is at work
(try later), 130 interrupted.`

func (a *app) cli() *cli.App {
	return &cli.App{
		Name:            "dpo-pipe",
		Usage:           "align an ONNX language model to preference data",
		Description:     description,
		Version:         version(),
		HideHelpCommand: true,
		Writer:          a.stdout,
		ErrWriter:       a.stderr,
		// A prompt or a path may hold a comma.
		DisableSliceFlagSeparator: true,
		// Errors are printed once, by fail; the package must neither print nor exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   usageError,
		Action:         a.noCommand,
		Commands:       a.commands(),
	}
}

func (a *app) commands() []*cli.Command {
	all := []*cli.Command{
		a.precomputeCommand(), a.trainCommand(), a.evalCommand(), a.reportCommand(), a.exportCommand(), a.compareCommand(),
		a.runCommand(), a.runsCommand(), a.versionsCommand(), a.rollbackCommand(), a.inspectCommand(), a.headsCommand(),
		a.objectivesCommand(), a.demoCommand(), a.doctorCommand(),
	}
	for _, c := range all {
		c.OnUsageError = usageError
		c.HideHelpCommand = true // help is a file's name too
		c.Before = a.before
		if takesPlaces(c) {
			c.Flags = append(c.Flags, storeCacheFlag())
		}
		for _, f := range c.Flags {
			if f, ok := f.(*cli.BoolFlag); ok {
				f.DisableDefaultText = true // a switch is off
			}
		}
	}
	return all
}

// before runs ahead of every command.
func (a *app) before(c *cli.Context) error {
	a.doing = c.Command.Name
	if c.Command.ArgsUsage == "" && c.Args().Present() {
		return &usageErr{fmt.Errorf("%s takes no argument, got %q", a.doing, c.Args().First())}
	}
	return nil
}

// noCommand answers a bare dpo-pipe, or one whose first word is no command.
func (a *app) noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return &usageErr{fmt.Errorf("no command %q", c.Args().First())}
	}
	return cli.ShowAppHelp(c)
}

// usageErr is a mistake on the command line.
type usageErr struct{ err error }

func (e *usageErr) Error() string { return e.err.Error() }
func (e *usageErr) Unwrap() error { return e.err }

func usageError(_ *cli.Context, err error, _ bool) error { return &usageErr{err} }

// version is the module's, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
