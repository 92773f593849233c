package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// stateFormat is the version of trainer_state.json.
const stateFormat = 1

// trainerState is trainer_state.json: with the adapter and the optimizer's
// moments, all that a run needs to go on. The order of the data follows from
// seed and step.
type trainerState struct {
	Format int   `json:"format"`
	Step   int64 `json:"step"`
	// MetricsBytes is the length of metrics.jsonl at this step.
	MetricsBytes int64 `json:"metrics_bytes"`
	// MetricsSHA256 is that of so much of it.
	MetricsSHA256 string `json:"metrics_sha256,omitempty"`
	// Best are the best of the evaluated checkpoints. Stale counts evaluations since
	// the first of them; Stopped says that they became too many.
	Best    ranking `json:"best,omitempty"`
	Stale   int     `json:"stale,omitempty"`
	Stopped bool    `json:"stopped,omitempty"`
	// Before and After are held-out metrics of the fresh head and of the newest evaluation.
	Before Values `json:"before,omitempty"`
	After  Values `json:"after,omitempty"`
	// Identity is that of the cache, Config that of the run.
	Identity map[string]string `json:"cache_identity"`
	Config   TrainConfig       `json:"config"`
}

// stepName is the folder of a checkpoint.
func stepName(step int64) string { return fmt.Sprintf("step-%d", step) }

// checkpointPath is where it is in a run folder.
func checkpointPath(step int64) string { return filepath.Join(checkpointsName, stepName(step)) }

// save writes a checkpoint of the current step, points last (and best) to it and
// drops old ones. Saving the same step twice is done once.
func (t *trainer) save() error {
	if t.state.Step == t.saved || t.state.Step == 0 {
		return nil
	}
	if err := t.log(); err != nil {
		return err
	}
	if err := t.metrics.sync(); err != nil {
		return err
	}
	t.state.Format, t.state.MetricsBytes, t.state.MetricsSHA256 = stateFormat, t.metrics.size, t.metrics.sum()
	t.state.Identity, t.state.Config = t.stream.cache.Manifest().Identity, t.cfg
	t.state.After = t.after
	path := filepath.Join(t.cfg.Out, checkpointPath(t.state.Step))
	if err := t.write(path); err != nil {
		return err
	}
	t.saved = t.state.Step
	return t.point()
}

// baseName names the base model in an adapter: by what it is, not by where it
// lay when the cache was made.
func baseName(identity map[string]string) string {
	if sum := identity["model"]; sum != "" {
		return "sha256:" + sum
	}
	return ""
}

func (t *trainer) write(path string) error {
	dir, err := atomicfile.CreateDir(path)
	if err != nil {
		return err
	}
	defer dir.Abort()
	if err := models.WriteAdapter(dir.Path, t.head, baseName(t.state.Identity)); err != nil {
		return err
	}
	if err := models.WriteOptimizer(dir.Path, t.optimizer); err != nil {
		return err
	}
	// The state has its own seal: its bytes move with the clock, those of the others don't.
	if err := checksum.WriteSums(dir.Path); err != nil {
		return err
	}
	err = atomicfile.WriteFile(filepath.Join(dir.Path, stateName), func(w io.Writer) error { return writeJSON(w, t.state) })
	if err != nil {
		return err
	}
	return dir.Commit()
}

// A ResumeError is a checkpoint that a run can't go on from, or metrics behind it, as files of it are damaged or
// missing. Training anew is all that is left.
type ResumeError struct {
	// Checkpoint is its folder.
	Checkpoint string
	Err        error
}

// Error says what is damaged.
func (e *ResumeError) Error() string { return e.Err.Error() }

func (e *ResumeError) Unwrap() error { return e.Err }

// unusable makes err a [*ResumeError], unless the files could not be read: they may be whole.
func unusable(checkpoint string, err error) error {
	var path *fs.PathError
	if err == nil || errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &ResumeError{checkpoint, err}
}

// load goes on from the newest checkpoint of the run, if there is one.
func (t *trainer) load() error {
	if !exists(filepath.Join(t.cfg.Out, checkpointsName)) {
		return nil
	}
	for _, dir := range []string{t.cfg.Out, filepath.Join(t.cfg.Out, checkpointsName)} {
		if err := atomicfile.RemoveTemp(dir); err != nil {
			return err
		}
	}
	steps, err := checkpointSteps(t.cfg.Out)
	if err != nil || len(steps) == 0 {
		return err
	}
	path := filepath.Join(t.cfg.Out, checkpointPath(steps[len(steps)-1]))
	state, err := readState(path)
	if err := unusable(path, err); err != nil {
		return err
	}
	if err := t.stream.cache.Manifest().Check(state.Identity); err != nil {
		return fmt.Errorf("pipeline: resume %s: %w", path, err)
	}
	if err := sameRun(state.Config, t.cfg); err != nil {
		return fmt.Errorf("pipeline: resume %s: %w", path, err)
	}
	if err := unusable(path, t.restore(path, state)); err != nil {
		return err
	}
	t.state, t.saved, t.resumedAt, t.after = state, state.Step, state.Step, state.After
	// A kill may have come between the checkpoint and what follows it.
	return t.point()
}

// restore reads head and optimizer of a checkpoint, and makes sure of the metrics up to it.
func (t *trainer) restore(path string, state trainerState) error {
	if err := checkMetrics(filepath.Join(t.cfg.Out, metricsName), state); err != nil {
		return err
	}
	head, _, err := models.ReadAdapter(path)
	if err != nil {
		return err
	}
	if err := models.Assign(t.head, head); err != nil {
		return fmt.Errorf("pipeline: resume %s: %w", path, err)
	}
	return models.ReadOptimizer(path, t.optimizer)
}

// point makes last and best lead to the checkpoints they name, then drops old ones.
func (t *trainer) point() error {
	if err := atomicfile.Symlink(checkpointPath(t.saved), filepath.Join(t.cfg.Out, lastName)); err != nil {
		return err
	}
	if len(t.state.Best) > 0 {
		if err := atomicfile.Symlink(checkpointPath(t.state.Best[0].Step), filepath.Join(t.cfg.Out, bestName)); err != nil {
			return err
		}
	}
	return t.prune()
}

// checkpointSteps lists the steps that a run has checkpoints of, ascending.
func checkpointSteps(run string) ([]int64, error) {
	entries, err := os.ReadDir(filepath.Join(run, checkpointsName))
	if err != nil {
		return nil, fmt.Errorf("pipeline: list checkpoints: %w", err)
	}
	var steps []int64
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), "step-"); ok && e.IsDir() {
			if step, err := strconv.ParseInt(digits, 10, 64); err == nil && step > 0 {
				steps = append(steps, step)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// readState reads trainer_state.json of a checkpoint, all of whose files must be what was
// written. The error wraps fs.ErrNotExist for an adapter that training elsewhere wrote.
func readState(checkpoint string) (trainerState, error) {
	if err := checksum.VerifySums(checkpoint); err != nil {
		return trainerState{}, err
	}
	path := filepath.Join(checkpoint, stateName)
	var s trainerState
	if err := decodeJSON(path, &s); err != nil {
		return trainerState{}, err
	}
	if s.Format != stateFormat || s.Step < 1 {
		return trainerState{}, fmt.Errorf("pipeline: %s: format %d, step %d; want format %d and a step of 1 or more",
			path, s.Format, s.Step, stateFormat)
	}
	if err := s.Config.Validate(); err != nil {
		return trainerState{}, fmt.Errorf("pipeline: %s: %w", path, err)
	}
	return s, nil
}

// prune removes all but the newest Keep checkpoints and the best KeepBest.
func (t *trainer) prune() error {
	steps, err := checkpointSteps(t.cfg.Out)
	if err != nil {
		return err
	}
	for _, step := range steps[:max(0, len(steps)-t.cfg.Keep)] {
		if t.state.Best.has(step) {
			continue
		}
		if err := atomicfile.RemoveDir(filepath.Join(t.cfg.Out, checkpointPath(step))); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON writes v, sealed.
func writeJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(checksum.Seal(text.Bytes()))
	return err
}

// CheckpointCache returns what the settings that a checkpoint was trained with name as its
// cache: a path, or the URL of a store; "" for an adapter of another program.
func CheckpointCache(checkpoint string) (string, error) {
	state, err := readState(checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return state.Config.Cache, err
}
