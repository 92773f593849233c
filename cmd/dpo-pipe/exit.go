package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// Exit codes; scripts and schedulers act on them, so they never change.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitEnvironment = 3
	exitData        = 4
	exitGate        = 5
	exitInterrupted = 130
)

// fail prints an error with what to do about it and returns its exit code.
func (a *app) fail(ctx context.Context, err error) int {
	code, hints := classify(err)
	if ctx.Err() != nil {
		fmt.Fprintln(a.stderr, "dpo-pipe: interrupted; what was finished is kept")
		return exitInterrupted
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(a.stderr, "dpo-pipe: error: %s\n", strings.TrimRight(line, "\n"))
	}
	for _, hint := range hints {
		fmt.Fprintf(a.stderr, "dpo-pipe: hint: %s\n", hint)
	}
	return code
}

// classify maps the kind of an error to its exit code and hints.
func classify(err error) (code int, hints []string) {
	var (
		usage   *usageErr
		field   *pipeline.FieldError
		stale   *refcache.StaleError
		exists  *pipeline.RunExistsError
		model   *pipeline.ModelError
		refused *onnx.RefusedError
		badData *pipeline.BadDataError
		row     *datasets.RowError
		data    *pipeline.DataError
		changed *pipeline.SettingsError
		env     environmentError
	)
	switch {
	case errors.As(err, &usage):
		return exitUsage, []string{"--help after a command shows its flags and an example"}
	case errors.As(err, &field), errors.As(err, &changed):
		return exitUsage, nil
	case errors.As(err, &exists):
		return exitUsage, []string{"go on with it by --resume, or name another folder with --out"}
	case errors.As(err, &stale):
		return exitUsage, []string{"run dpo-pipe precompute-ref again with these settings, or name another --out"}
	case errors.As(err, &model), errors.As(err, &refused):
		return exitUsage, nil
	case errors.As(err, &badData):
		return exitData, []string{"mend the rows, name the right columns (--column-prompt …), or allow more with --max-bad-frac"}
	case errors.As(err, &row):
		return exitData, nil
	case errors.As(err, &env), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
		return exitEnvironment, environmentHints(err)
	case errors.Is(err, fs.ErrNotExist):
		return exitUsage, nil
	case errors.As(err, &data):
		return exitData, nil
	}
	return exitFailed, nil
}

// environmentError is an error about the machine: library, provider, disk.
type environmentError interface {
	error
	// Environment marks the kind.
	Environment()
}

func environmentHints(err error) []string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return []string{"the disk is full; what was finished is kept, run the same command again when there is room"}
	}
	return nil
}
