package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/publish"
	"github.com/dpo-pipe/dpo-pipe/store"
)

// Exit codes; scripts and schedulers act on them, so they never change.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitEnvironment = 3
	exitData        = 4
	exitGate        = 5
	exitTimeUp      = 6  // the next start goes on
	exitBusy        = 75 // EX_TEMPFAIL of sysexits.h: try later
	exitInterrupted = 130
)

// fail prints an error with what to do about it and returns its exit code.
func (a *app) fail(ctx context.Context, err error) int {
	advice := adviceFor(a.doing)
	if ctx.Err() != nil {
		return a.interrupted(err, advice)
	}
	code, hint := classify(err, advice)
	a.printError(err, hint)
	return code
}

// interrupted says what is left to do after a signal. Errors beside the signal's
// own, a checkpoint that could not be saved, are printed too; then no more is
// promised than their hint does.
func (a *app) interrupted(err error, advice advice) int {
	if err = besides(err, context.Canceled); err == nil {
		a.say("interrupted; " + advice.interrupted)
		return exitInterrupted
	}
	_, hint := classify(err, advice)
	a.say("interrupted")
	a.printError(err, hint)
	return exitInterrupted
}

// say writes a message that is no error.
func (a *app) say(text string) {
	if a.log != nil {
		a.log.Info(text)
		return
	}
	fmt.Fprintf(a.stderr, "dpo-pipe: %s\n", text)
}

// printError writes every line of an error, then the hint if there is one.
func (a *app) printError(err error, hint string) {
	if a.log != nil {
		a.log.Error(a.at.name(err.Error()), "hint", hint)
		return
	}
	for line := range strings.Lines(a.at.name(err.Error())) {
		fmt.Fprintf(a.stderr, "dpo-pipe: error: %s\n", strings.TrimRight(line, "\n"))
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "dpo-pipe: hint: %s\n", hint)
	}
}

// besides returns those of the joined errors in err that are not target, joined;
// nil where there are none.
func besides(err, target error) error {
	if err == nil || !errors.Is(err, target) {
		return err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return besides(errors.Unwrap(err), target)
	}
	var others []error
	for _, one := range joined.Unwrap() {
		others = append(others, besides(one, target))
	}
	return errors.Join(others...)
}

// classify maps the kind of an error to its exit code and a hint.
func classify(err error, advice advice) (code int, hint string) {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitEnvironment, "the disk is full; " + advice.full
	case store.KindOf(err) == store.Unreachable:
		return exitEnvironment, "the same command tries again, and transfers only what is missing"
	case errors.Is(err, syscall.EIO):
		return exitEnvironment, "the disk or the network behind it fails; nothing is wrong with the command"
	case is[environmentError](err), errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return exitEnvironment, ""
	case is[*job.GateError](err):
		return exitGate, ""
	case is[*job.TimeUpError](err):
		return exitTimeUp, ""
	case is[*job.BusyError](err):
		return exitBusy, ""
	case is[*job.KeyError](err):
		return exitUsage, "docs/jobs.md explains every key; dpo-pipe run --schema prints their schema"
	case is[*usageErr](err):
		return exitUsage, "dpo-pipe --help lists the commands, dpo-pipe COMMAND --help its flags and an example"
	case is[*pipeline.RunExistsError](err):
		return exitUsage, "go on with it by --resume, or name another folder with --out"
	case is[*pipeline.LockedError](err):
		return exitFailed, "wait for the other process, or name another folder with --out"
	case is[*refcache.SplitError](err):
		return exitUsage, "--shards N joins those of N; remove the folders of the others, or the wrong ones"
	case is[*refcache.StaleError](err):
		return exitUsage, advice.stale
	case is[*pipeline.PruneError](err):
		return exitUsage, "--dry-run counts; --prune drops them from the cache, another --out keeps it"
	case errors.Is(err, refcache.ErrIncomplete):
		return exitUsage, "finish it first: run the precompute-ref command that began it again"
	case is[*pipeline.FieldError](err), is[*pipeline.SettingsError](err), is[*pipeline.ModelError](err), is[*refcache.MountError](err),
		is[*onnx.RefusedError](err), is[*tokenizer.UnsupportedError](err), errors.Is(err, refcache.ErrNotCache):
		return exitUsage, ""
	case is[*publish.NameError](err), is[*publish.PlaceError](err), is[*publish.ExistsError](err), is[*publish.WithdrawnError](err):
		return exitUsage, ""
	case is[*publish.NoVersionError](err):
		return exitUsage, "dpo-pipe versions PLACE lists what there is"
	case is[*publish.DamagedError](err):
		return exitFailed, "nothing was changed; go to another version by rollback --to, or put back the damaged file from a copy"
	case is[*pipeline.NoFeaturesError](err):
		return exitUsage, "--model FOLDER names it; a cache made with --features f16, bf16 or f32 needs none"
	case is[*refcache.FeatureError](err):
		return featureHint(err)
	case is[*encode.NoTemplateError](err):
		return exitUsage, "--chat-template FILE names one, --chat-template none does without"
	case is[*pipeline.BadDataError](err):
		return exitData, "mend the rows, name the right columns (--column-prompt …), or allow more with --max-bad-frac"
	case is[*datasets.RowError](err), is[*pipeline.NoRowsError](err):
		return exitData, ""
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return exitUsage, ""
	case is[*pipeline.DataError](err):
		return exitData, ""
	case is[*refcache.ShardsError](err):
		return exitFailed, "run those shards with the command of the others, and join again"
	case errors.Is(err, refcache.ErrReplaced):
		return exitFailed, "another process brought the cache to other data; begin again with the one that is there now"
	case errors.Is(err, refcache.ErrCorrupt):
		return exitFailed, cmp.Or(advice.damaged, "remove the cache and run precompute-ref again")
	case errors.Is(err, checksum.ErrChanged):
		return exitFailed, cmp.Or(advice.damaged, "take the file from a copy, or write it again by the command that made it")
	}
	return exitFailed, ""
}

// featureHint names the dtypes that hold what one can't.
func featureHint(err error) (code int, hint string) {
	e, _ := errors.AsType[*refcache.FeatureError](err)
	wider := e.Wider()
	if len(wider) == 0 {
		return exitFailed, "" // the model's own number is not finite
	}
	flags := make([]string, len(wider))
	for i, dt := range wider {
		flags[i] = fmt.Sprintf("--features %s", dt)
	}
	return exitUsage, strings.Join(flags, " or ") + " with another --out: the precision is less or the cache larger, the range wider"
}

// is reports whether err is or wraps an error of type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// environmentError is an error about the machine: library, provider, disk.
type environmentError interface {
	error
	// Environment marks the kind.
	Environment()
}

// advice is what helps in one command where commands differ.
type advice struct {
	interrupted string // what a signal leaves
	full        string // when there is room on the disk again
	stale       string // a cache made otherwise than wanted
	damaged     string // a file that is not what was written; empty where commands don't differ
}

// dryRun is what precompute-ref --dry-run is doing: nothing that stays.
const dryRun = "dry-run"

func adviceFor(command string) advice {
	switch command {
	case "precompute-ref":
		return advice{
			interrupted: "the same command goes on behind the last whole part",
			full:        "make room; the same command goes on behind the last whole part",
			stale:       "--out holds a cache made otherwise: remove the folder, or name another --out",
		}
	case joining:
		return advice{
			interrupted: "the shards stay as they were; the same command joins them",
			full:        "make room; the same command joins the shards",
			stale:       "remove the folders of the shards that differ and run them with the command of the others",
		}
	case "train":
		return advice{
			interrupted: "the same command with --resume goes on from the last checkpoint or, without one, begins",
			full:        "make room; the same command with --resume goes on from the last checkpoint",
			stale:       "name the --cache that was made from this model and data, or run precompute-ref again with another --out",
		}
	case "run":
		return advice{
			interrupted: "the same command goes on where this run stopped",
			full:        "make room; the same command goes on where this run stopped",
			stale:       "the published policy is one of another model: gates.published: off publishes without comparing",
			damaged:     "remove its folder (the cache, or train/ of the run) and start again: what is missing is made anew",
		}
	case "demo":
		return advice{
			interrupted: "its folder keeps what was finished; to run it again, remove the folder or name another with --out",
			full:        "make room, remove the folder and run it again, or name one elsewhere with --out",
			stale:       "remove the folder, or name another with --out",
		}
	}
	return advice{
		interrupted: "nothing was written",
		full:        "nothing was written; make room and run it again",
		stale:       "name the model and the cache that the checkpoint was trained with",
	}
}
