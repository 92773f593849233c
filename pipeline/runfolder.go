package pipeline

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// The names in a run folder. They are on disk and don't change.
const (
	configName      = "config.yaml"
	metricsName     = "metrics.jsonl"
	summaryName     = "summary.json"
	checkpointsName = "checkpoints"
	lastName        = "last"
	bestName        = "best"
	stateName       = "trainer_state.json"
)

// A RunExistsError refuses to write over an earlier run.
type RunExistsError struct{ Path string }

func (e *RunExistsError) Error() string {
	return fmt.Sprintf("pipeline: run folder %q holds a run already", e.Path)
}

// A SettingsError refuses to resume a run under other settings; Have and Want
// are lines of config.yaml.
type SettingsError struct{ Have, Want string }

func (e *SettingsError) Error() string {
	return fmt.Sprintf("pipeline: the run was started with %q, want %q: settings can't change on --resume", e.Have, e.Want)
}

// LockedError says that another process works in a folder.
type LockedError = lockfile.LockedError

// checkRun refuses, without writing, a folder that holds something else, or a
// run that must not be gone on with.
func checkRun(cfg TrainConfig) error {
	if IsSweep(cfg.Out) {
		return &FieldError{"--out", cfg.Out, "a new folder or a run; that one holds a sweep"}
	}
	if !isFile(filepath.Join(cfg.Out, configName)) {
		// A kill before there are settings leaves an empty folder for checkpoints.
		return checkNew(cfg.Out, "run", checkpointsName)
	}
	if !cfg.Resume {
		return &RunExistsError{cfg.Out}
	}
	have, err := LoadRunConfig(cfg.Out)
	if err != nil {
		return err
	}
	return sameRun(have, cfg)
}

// checkNew refuses an output folder that holds something else than what a killed
// process leaves: hidden files and those named.
func checkNew(path, kind string, left ...string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return &FieldError{"--out", path, "a folder; that is a file"}
	case err != nil:
		return fmt.Errorf("pipeline: output folder: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(left, e.Name()) {
			return &FieldError{"--out", path, fmt.Sprintf("a new folder or a %s; that one holds %q", kind, e.Name())}
		}
	}
	return nil
}

// createRun makes the run folder, and writes down the settings: those that may
// change on --resume are the new ones.
func createRun(cfg TrainConfig) error {
	if err := os.MkdirAll(filepath.Join(cfg.Out, checkpointsName), 0o777); err != nil {
		return fmt.Errorf("pipeline: create run folder: %w", err)
	}
	return atomicfile.WriteFile(filepath.Join(cfg.Out, configName), func(w io.Writer) error {
		enc := yaml.NewEncoder(w)
		enc.SetIndent(2)
		return errors.Join(enc.Encode(cfg), enc.Close())
	})
}

// LoadRunConfig reads the resolved settings of a run folder. Keys that this
// version does not know, or that are there twice, are errors. The error wraps fs.ErrNotExist where the
// folder holds no run.
func LoadRunConfig(run string) (TrainConfig, error) {
	path := filepath.Join(run, configName)
	data, err := os.ReadFile(path)
	if err != nil {
		return TrainConfig{}, fmt.Errorf("pipeline: read run settings: %w", err)
	}
	cfg := DefaultTrainConfig()
	if err := decodeYAML(data, &cfg); err != nil {
		return TrainConfig{}, fmt.Errorf("pipeline: %s: %w", path, err)
	}
	cfg.Out, cfg.Resume = run, true
	if err := cfg.Validate(); err != nil {
		return TrainConfig{}, fmt.Errorf("pipeline: %s: %w", path, err)
	}
	return cfg, nil
}

// sameRun refuses to resume a run under settings that would give another result.
// How often it logs and saves may change, and where cache, model and data lie.
func sameRun(have, want TrainConfig) error {
	a, errA := settings(have)
	b, errB := settings(want)
	if err := errors.Join(errA, errB); err != nil {
		return fmt.Errorf("pipeline: compare run settings: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		if a[key] != b[key] {
			return &SettingsError{Have: fmt.Sprintf("%s: %v", key, a[key]), Want: fmt.Sprintf("%s: %v", key, b[key])}
		}
	}
	return nil
}

// settings are those that move the result of a run, by their key.
func settings(c TrainConfig) (map[string]any, error) {
	c.Data = nil
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := yaml.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	for _, key := range []string{"cache", "out", "model", "model_file", "log_every", "save_every", "keep"} {
		delete(m, key)
	}
	return m, nil
}
