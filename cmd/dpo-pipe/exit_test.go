package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/job"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
	"github.com/dpo-pipe/dpo-pipe/publish"
)

// wrapped is err as stages hand it on.
func wrapped(err error) error { return fmt.Errorf("pipeline: step 3: %w", err) }

func pathError(err error) error { return &fs.PathError{Op: "write", Path: "x", Err: err} }

type noMachine struct{ error }

func (noMachine) Environment() {}

func TestExitCodes(t *testing.T) {
	row := &datasets.RowError{File: "a.jsonl", Row: 1, Reason: datasets.NullValue, Detail: "is null"}
	for _, tc := range []struct {
		name  string
		doing string
		err   error
		code  int
		hint  string // a part of it; "" means none
	}{
		{"mistake on the command line", "train", &usageErr{errors.New("no such flag")}, exitUsage, "--help"},
		{"setting", "train", errors.Join(&pipeline.FieldError{Field: "--rank"}, &pipeline.FieldError{Field: "--lr"}), exitUsage, ""},
		{"changed setting", "train", &pipeline.SettingsError{}, exitUsage, ""},
		{"run exists", "train", &pipeline.RunExistsError{}, exitUsage, "--resume"},
		{"folder in use", "train", &pipeline.LockedError{Path: "run"}, exitFailed, "wait"},
		{"model", "train", &pipeline.ModelError{}, exitUsage, ""},
		{"refused graph", "precompute-ref", &onnx.RefusedError{}, exitUsage, ""},
		{"refused tokenizer", "precompute-ref", &tokenizer.UnsupportedError{}, exitUsage, ""},
		{"no chat template", "precompute-ref", &encode.NoTemplateError{}, exitUsage, "--chat-template none"},
		{"stale, demonstration", "demo", &refcache.StaleError{}, exitUsage, "--out"},
		{"stale, reference pass", "precompute-ref", &refcache.StaleError{}, exitUsage, "remove the folder, or name another --out"},
		{"stale, training", "train", &refcache.StaleError{}, exitUsage, "run precompute-ref again"},
		{"stale, evaluation", "eval", &refcache.StaleError{}, exitUsage, "the checkpoint was trained with"},
		{"stale, export", "export", &refcache.StaleError{}, exitUsage, "the checkpoint was trained with"},
		{"stale, shards", joining, &refcache.StaleError{}, exitUsage, "remove the folders of the shards that differ"},
		{"stale, and shards lack", joining, errors.Join(&refcache.StaleError{}, &refcache.ShardsError{Of: 1}), exitUsage, "differ"},
		{"shards lack", joining, &refcache.ShardsError{}, exitFailed, "run those shards"},
		{"shards of several splits", joining, &refcache.SplitError{}, exitUsage, "--shards N"},
		{"full disk, join", joining, pathError(syscall.ENOSPC), exitEnvironment, "the same command joins"},
		{"pairs would be dropped", "precompute-ref", &pipeline.PruneError{}, exitUsage, "--prune"},
		{"cache is a mount point", "precompute-ref", &refcache.MountError{}, exitUsage, ""},
		{"hidden state out of range", "precompute-ref", &refcache.FeatureError{Value: 7e4, DType: refcache.F16}, exitUsage, "--features bf16 or --features f32"},
		{"hidden state not finite", "precompute-ref", &refcache.FeatureError{Value: float32(math.Inf(1)), DType: refcache.F32}, exitFailed, ""},
		{"cache without features", "train", &pipeline.NoFeaturesError{}, exitUsage, "--model FOLDER"},
		{"no cache", "train", fmt.Errorf("refcache: %w: no manifest.json", refcache.ErrNotCache), exitUsage, ""},
		{"unfinished cache", "train", fmt.Errorf("refcache: %w", refcache.ErrIncomplete), exitUsage, "precompute-ref"},
		{"damaged cache", "train", fmt.Errorf("refcache: %w", refcache.ErrCorrupt), exitFailed, "remove the cache"},
		{"damaged cache, job", "run", wrapped(refcache.ErrCorrupt), exitFailed, "what is missing is made anew"},
		{"damaged checkpoint", "train", wrapped(checksum.ErrChanged), exitFailed, "from a copy"},
		{"damaged checkpoint, job", "run", wrapped(checksum.ErrChanged), exitFailed, "train/ of the run"},
		{"replaced cache", "train", fmt.Errorf("refcache: %w", refcache.ErrReplaced), exitFailed, "begin again"},
		{"no such file", "eval", pathError(fs.ErrNotExist), exitUsage, ""},
		{"a file for a folder", "train", pathError(syscall.ENOTDIR), exitUsage, ""},
		{"no library", "doctor", noMachine{errors.New("no library")}, exitEnvironment, ""},
		{"may not write", "train", pathError(syscall.EACCES), exitEnvironment, ""},
		{"may not read the data", "train", &pipeline.DataError{Err: pathError(syscall.EPERM)}, exitEnvironment, ""},
		{"may not list the data", "train", &usageErr{pathError(syscall.EACCES)}, exitEnvironment, ""},
		{"read-only disk", "train", pathError(syscall.EROFS), exitEnvironment, ""},
		{"full disk, reference pass", "precompute-ref", pathError(syscall.ENOSPC), exitEnvironment, "full; make room; the same command goes on"},
		{"full disk, training", "train", pathError(syscall.ENOSPC), exitEnvironment, "with --resume"},
		{"full disk, demonstration", "demo", pathError(syscall.ENOSPC), exitEnvironment, "--out"},
		{"full disk, export", "export", pathError(syscall.EDQUOT), exitEnvironment, "nothing was written"},
		{"unusable rows", "precompute-ref", &pipeline.BadDataError{First: row}, exitData, "--max-bad-frac"},
		{"unusable row", "precompute-ref", row, exitData, ""},
		{"no rows", "precompute-ref", &pipeline.NoRowsError{}, exitData, ""},
		{"unreadable data", "precompute-ref", &pipeline.DataError{Err: errors.New("no Parquet")}, exitData, ""},
		{"bad version", "rollback", &publish.NameError{}, exitUsage, ""},
		{"odd place", "rollback", &publish.PlaceError{}, exitUsage, ""},
		{"published otherwise", "run", &publish.ExistsError{}, exitUsage, ""},
		{"rolled back", "run", &publish.WithdrawnError{}, exitUsage, ""},
		{"nothing to go back to", "rollback", &publish.NoVersionError{}, exitUsage, "versions"},
		{"damaged version", "rollback", &publish.DamagedError{}, exitFailed, "--to"},
		{"no symbolic links", "run", &publish.NoLinksError{Err: syscall.EPERM}, exitEnvironment, ""},
		{"gate", "run", &job.GateError{}, exitGate, ""},
		{"time up", "run", &job.TimeUpError{}, exitTimeUp, ""},
		{"time up on a full disk", "run", errors.Join(&job.TimeUpError{}, pathError(syscall.ENOSPC)), exitEnvironment, "the same command goes on"},
		{"job at work", "run", &job.BusyError{}, exitBusy, ""},
		{"mistake in a job file", "run", errors.Join(&job.KeyError{}, &job.KeyError{}), exitUsage, "docs/jobs.md"},
		{"another model was published", "run", &refcache.StaleError{}, exitUsage, "gates.published"},
		{"wrong export", "export", &pipeline.VerifyError{}, exitFailed, ""},
		{"anything else", "train", errors.New("odd"), exitFailed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, hint := classify(wrapped(tc.err), adviceFor(tc.doing))
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.Contains(hint, tc.hint) || (hint == "") != (tc.hint == "") {
				t.Errorf("hint %q, want %q", hint, tc.hint)
			}
		})
	}
}

// TestInterrupted wants to be told what a signal left, and every error beside it.
func TestInterrupted(t *testing.T) {
	full := fmt.Errorf("save: %w", pathError(syscall.ENOSPC))
	for _, tc := range []struct {
		name, doing string
		err         error
		want        string
	}{
		{"reference pass", "precompute-ref", wrapped(context.Canceled), "interrupted; the same command goes on behind the last whole part"},
		{"training", "train", errors.Join(context.Canceled, nil), "interrupted; the same command with --resume goes on from the last checkpoint or, without one, begins"},
		{"dry run", dryRun, context.Canceled, "interrupted; nothing was written"},
		{"export", "export", context.Canceled, "interrupted; nothing was written"},
		{
			"checkpoint not saved", "train", errors.Join(context.Canceled, full),
			"interrupted\ndpo-pipe: error: save: write x: no space left on device\n" +
				"dpo-pipe: hint: the disk is full; make room; the same command with --resume goes on from the last checkpoint",
		},
		{
			"joined further in", "eval", wrapped(errors.Join(context.Canceled, errors.New("close: odd"))),
			"interrupted\ndpo-pipe: error: close: odd",
		},
		{"something else", "eval", errors.New("odd"), "interrupted\ndpo-pipe: error: odd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			var stderr bytes.Buffer
			a := &app{stderr: &stderr, doing: tc.doing}
			if code := a.fail(ctx, tc.err); code != exitInterrupted {
				t.Errorf("exit code %d, want %d", code, exitInterrupted)
			}
			if want := "dpo-pipe: " + tc.want + "\n"; stderr.String() != want {
				t.Errorf("got\n%swant\n%s", stderr.String(), want)
			}
		})
	}
}
