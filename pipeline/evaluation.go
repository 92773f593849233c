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

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/loss"
)

// evaluationName is the file in a run folder that holds the newest Evaluation of its
// held-out pairs. It is on disk and doesn't change.
const evaluationName = "evaluation.json"

// An Evaluation holds what pairs say about a head.
type Evaluation struct {
	// Step is how many steps the head was trained.
	Step           int64 `json:"step"`
	Pairs          int64 `json:"pairs"`
	ChosenTokens   int64 `json:"chosen_tokens"`
	RejectedTokens int64 `json:"rejected_tokens"`
	// Metrics are figures over all pairs, Intervals where 95 % of their resamples lie,
	// in the same order.
	Metrics   Values    `json:"metrics"`
	Intervals Intervals `json:"intervals"`
	// LengthBuckets tell reward accuracy by n_c-n_r, Calibration by how sure the policy is;
	// pairs of a head that has diverged, whose confidence is not finite, are in no bin.
	LengthBuckets []loss.LengthBucket   `json:"length_buckets"`
	Calibration   []loss.CalibrationBin `json:"calibration"`
	Alarms        []Alarm               `json:"alarms"`
}

// tally gathers what scored pairs say about a head.
type tally struct {
	window loss.Metrics
	boot   *bootstrap
}

func newTally() *tally { return &tally{boot: newBootstrap()} }

// add counts pairs by their metrics under a head, which s has scored.
func (t *tally) add(s *scorer, rows []refcache.Row) {
	s.addTo(&t.window)
	for i := range rows {
		t.boot.add(rows[i].PromptKey, &s.each[i])
	}
}

// evaluation tells what was counted.
func (t *tally) evaluation(step int64) *Evaluation {
	m := t.window.Means()
	figures := means(m)
	return &Evaluation{
		Step: step, Pairs: int64(m.Pairs), ChosenTokens: int64(m.ChosenTokens), RejectedTokens: int64(m.Tokens - m.ChosenTokens),
		Metrics: figures, Intervals: intervalsOf(figures, t.boot.table()),
		LengthBuckets: t.window.LengthBuckets(), Calibration: finiteBins(t.window.Calibration()), Alarms: alarms(figures),
	}
}

// finiteBins drops bins that JSON has no number for.
func finiteBins(bins []loss.CalibrationBin) []loss.CalibrationBin {
	return slices.DeleteFunc(bins, func(b loss.CalibrationBin) bool { return !finite(b.Confidence) })
}

// write puts an evaluation into a run folder in place of the one before.
func (e *Evaluation) write(run string) error {
	return atomicfile.WriteFile(filepath.Join(run, evaluationName), func(w io.Writer) error { return writeJSON(w, e) })
}

// readEvaluation reads the newest evaluation of a run; nil where it has none.
func readEvaluation(run string) (*Evaluation, error) {
	return readJSON[Evaluation](filepath.Join(run, evaluationName))
}

// readJSON reads a file of a run folder; nil where there is none. Fields that this
// version does not know are errors.
func readJSON[T any](path string) (*T, error) {
	v := new(T)
	err := decodeJSON(path, v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// decodeJSON reads a file into v, which keeps what the file does not mention. Fields that v
// does not have are errors, and so is a file that is sealed and changed; the error wraps fs.ErrNotExist where there is no file.
func decodeJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("pipeline: %w", err)
	}
	if data, err = checksum.Open(data); err != nil {
		return fmt.Errorf("pipeline: %s: %w", path, err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("pipeline: %s: %w", path, err)
	}
	return nil
}
