package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
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

// openRun makes the run folder, or checks that the one that is there was made
// with the same settings. It reports whether there was one.
func openRun(cfg TrainConfig) (existed bool, err error) {
	if exists(filepath.Join(cfg.Out, configName)) {
		if !cfg.Resume {
			return true, &RunExistsError{cfg.Out}
		}
		have, err := LoadRunConfig(cfg.Out)
		if err != nil {
			return true, err
		}
		return true, sameRun(have, cfg)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Out, checkpointsName), 0o777); err != nil {
		return false, fmt.Errorf("pipeline: create run folder: %w", err)
	}
	return false, atomicfile.WriteFile(filepath.Join(cfg.Out, configName), func(w io.Writer) error {
		enc := yaml.NewEncoder(w)
		enc.SetIndent(2)
		return errors.Join(enc.Encode(cfg), enc.Close())
	})
}

// LoadRunConfig reads the resolved settings of a run folder. Keys that this
// version does not know are errors. The error wraps fs.ErrNotExist where the
// folder holds no run.
func LoadRunConfig(run string) (TrainConfig, error) {
	path := filepath.Join(run, configName)
	data, err := os.ReadFile(path)
	if err != nil {
		return TrainConfig{}, fmt.Errorf("pipeline: read run settings: %w", err)
	}
	cfg := DefaultTrainConfig()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil {
		return TrainConfig{}, fmt.Errorf("pipeline: %s: %w", path, err)
	}
	cfg.Out, cfg.Resume = run, true
	return cfg, nil
}

// sameRun refuses to resume a run under settings that would give another result.
// How often it logs, saves and evaluates may change, and where the cache lies.
func sameRun(have, want TrainConfig) error {
	for _, c := range []*TrainConfig{&have, &want} {
		c.Cache, c.Out, c.Resume = "", "", false
		c.Model, c.ModelFile, c.Data = "", "", nil
		c.LogEvery, c.SaveEvery, c.Keep = 0, 0, 0
	}
	a, errA := yaml.Marshal(have)
	b, errB := yaml.Marshal(want)
	if err := errors.Join(errA, errB); err != nil {
		return fmt.Errorf("pipeline: compare run settings: %w", err)
	}
	linesA, linesB := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(linesA), len(linesB)) {
		if !bytes.Equal(linesA[i], linesB[i]) {
			return &SettingsError{Have: string(linesA[i]), Want: string(linesB[i])}
		}
	}
	return nil
}

// pointTo makes the link name in run lead to a checkpoint, atomically.
func pointTo(run, name, checkpoint string) error {
	tmp := filepath.Join(run, atomicfile.TempPrefix+name)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pipeline: link %q: %w", name, err)
	}
	target := filepath.Join(checkpointsName, filepath.Base(checkpoint))
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("pipeline: link %q: %w", name, err)
	}
	if err := os.Rename(tmp, filepath.Join(run, name)); err != nil {
		return fmt.Errorf("pipeline: link %q: %w", name, err)
	}
	return nil
}
