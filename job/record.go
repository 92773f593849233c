package job

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
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// The names in a run's folder. They are on disk and don't change.
const (
	configName     = "config.yaml"
	identitiesName = "identities.json"
	resultName     = "result.json"
	logName        = "log.jsonl"
	trainName      = "train"
	evaluationName = "evaluation.json"
	policyName     = "policy"
)

// RecordFiles make a folder in the runs' the record of one, in the order in which they are written.
var RecordFiles = []string{identitiesName, resultName}

// recordFormat is the version of result.json.
const recordFormat = 1

// Status says how a run ended.
type Status string

// How runs end. The newest is gone on with where it was interrupted or failed and nothing has
// changed since.
const (
	Published   Status = "published"   // its policy is current
	Done        Status = "done"        // the policy is made; nothing says where to publish
	Unchanged   Status = "unchanged"   // there was nothing to do
	Refused     Status = "refused"     // a gate was not met
	Running     Status = "running"     // at work, or killed
	Interrupted Status = "interrupted" // by a signal
	TimeUp      Status = "time up"     // --max-duration was over
	Failed      Status = "failed"      // with an error
	Damaged     Status = "damaged"     // its record can't be read; not known
)

// ended reports a run that is not gone on with.
func (s Status) ended() bool {
	return slices.Contains([]Status{Published, Done, Unchanged, Refused}, s)
}

// killed says of a run without a process that it is Interrupted.
func (r *Result) killed() bool {
	if r.Status != Running {
		return false
	}
	r.Status, r.Reason = Interrupted, "its process was killed"
	return true
}

// Stages of a run, in order.
const (
	StagePrecompute = "precompute"
	StageTrain      = "train"
	StageEvaluate   = "evaluate"
	StageGates      = "gates"
	StageExport     = "export"
	StagePublish    = "publish"
)

// A Stage says what became of a stage of a run.
type Stage struct {
	Name string `json:"stage"`
	// Action is "ran", "reused" or "skipped"; Text says what came of it, or why not.
	Action  string  `json:"action"`
	Text    string  `json:"text"`
	Seconds float64 `json:"seconds,omitempty"`
}

// A Result is result.json of a run, written when it begins, behind each stage, and at its end.
// Of a run that is Damaged there are the ID, the Number it should have, and in Reason why.
type Result struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	// Number counts the job's runs from 1: clocks may go back.
	Number int `json:"number"`
	// Job is the job file, Status how it ended, Reason why where that is no success.
	Job    string `json:"job"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Started is when the first attempt began, Finished when the last ended; Seconds is the
	// time of all of them.
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Seconds  float64   `json:"seconds"`
	Attempts int       `json:"attempts"`
	Stages   []Stage   `json:"stages"`
	// Changed lists keys whose value differs from the run before; nil where that is not known.
	Changed []string `json:"changed_keys"`

	// Pairs are in the cache; NewPairs were computed and DroppedPairs left it in this run.
	// Before is how many there were.
	Pairs        int64 `json:"pairs"`
	NewPairs     int64 `json:"new_pairs"`
	DroppedPairs int64 `json:"dropped_pairs"`
	Before       int64 `json:"pairs_before"`
	// DroppedRows counts unusable rows of the data by reason.
	DroppedRows map[string]int64 `json:"dropped_rows,omitempty"`
	// HeldOut pairs were scored; Metrics and Intervals are theirs.
	HeldOut   int64              `json:"held_out_pairs,omitempty"`
	Metrics   pipeline.Values    `json:"metrics,omitempty"`
	Intervals pipeline.Intervals `json:"intervals,omitempty"`
	Alarms    []pipeline.Alarm   `json:"alarms,omitempty"`
	Gates     []Gate             `json:"gates,omitempty"`
	// Policy is the folder with the policy, Published the version that it became.
	Policy    string `json:"policy,omitempty"`
	Published string `json:"published,omitempty"`

	identities identities
	folder     string
}

// identities are what the stages of a run were made from, by content: identities.json.
type identities struct {
	// Inputs is of all that the run began with: settings, model, data.
	Inputs string `json:"inputs"`
	// Cache is what the cache was asked for, key by key.
	Cache map[string]string `json:"cache"`
	// Stages hold what went in and where the outcome is.
	Stages map[string]made `json:"stages"`
	// Config is the SHA-256 of config.yaml.
	Config string `json:"config,omitempty"`
}

// made is a stage's outcome.
type made struct {
	// Inputs is the hash of what goes into it, Output its path below the runs' folder.
	Inputs string `json:"inputs"`
	Output string `json:"output"`
	// Done says that the outcome is whole.
	Done bool `json:"done"`
}

// run is the one that made it.
func (m made) run() string { return filepath.Dir(m.Output) }

// path is that of a file in the run's folder.
func (r *Result) path(name string) string { return filepath.Join(r.folder, name) }

// save writes result and identities.
func (r *Result) save() error {
	return errors.Join(writeJSON(r.path(identitiesName), r.identities), writeJSON(r.path(resultName), r))
}

// stage notes what became of a stage; a second attempt replaces the first.
func (r *Result) stage(s Stage) {
	i := slices.IndexFunc(r.Stages, func(have Stage) bool { return have.Name == s.Name })
	if i < 0 {
		r.Stages = append(r.Stages, s)
		return
	}
	s.Seconds += r.Stages[i].Seconds
	r.Stages[i] = s
}

// idLayout is the time in the name of a run.
const idLayout = "20060102T150405Z"

// createRun makes the folder of a new run, named by the time: the number-th of the job.
func createRun(runs string, number int, now time.Time) (*Result, error) {
	base := now.UTC().Format(idLayout)
	for n := 1; ; n++ {
		id := base
		if n > 1 {
			id = fmt.Sprintf("%s-%d", base, n)
		}
		folder := filepath.Join(runs, id)
		err := os.Mkdir(folder, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("job: run folder: %w", err)
		}
		return &Result{
			Format: recordFormat, ID: id, Number: number, Status: Running, Started: now.UTC().Truncate(time.Second), folder: folder, Changed: []string{},
			identities: identities{Stages: map[string]made{}},
		}, nil
	}
}

// readRuns reads the records of a job, the oldest first. Of one that is damaged there is its
// place among the others, which its name gives, and no more: it keeps none from being read.
func readRuns(runs string) ([]*Result, error) {
	entries, err := os.ReadDir(runs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("job: runs: %w", err)
	}
	var all []*Result
	number := 0
	for _, e := range entries {
		folder := filepath.Join(runs, e.Name())
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		has, err := recorded(folder)
		if err != nil {
			return nil, err
		}
		if !has {
			continue
		}
		r, err := readRun(folder)
		if errors.Is(err, fs.ErrPermission) { // which is nothing of this run's
			return nil, err
		}
		if err != nil {
			r = &Result{folder: folder, ID: e.Name(), Number: number + 1, Status: Damaged, Reason: err.Error(), identities: r.identities}
		}
		number = r.Number
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *Result) int { return a.Number - b.Number })
	return all, nil
}

// readRun reads a record. With an error, identities are right if they have stages.
func readRun(folder string) (*Result, error) {
	r := &Result{folder: folder}
	if err := readJSON(r.path(identitiesName), &r.identities); err != nil {
		r.identities = identities{}
		return r, err
	}
	if err := readJSON(r.path(resultName), r); err != nil {
		return r, err
	}
	if r.Format != recordFormat {
		return r, fmt.Errorf("job: %s: format %d, want %d", r.path(resultName), r.Format, recordFormat)
	}
	if id := filepath.Base(folder); r.ID != id || r.Number < 1 {
		return r, fmt.Errorf("job: %s: it is of run %q, number %d, want %q and 1 or more", r.path(resultName), r.ID, r.Number, id)
	}
	return r, nil
}

// recorded reports whether a folder holds the record of a run, whole or not. One that was killed
// before it had a record is none.
func recorded(folder string) (bool, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // removed meanwhile
	}
	if err != nil {
		return false, fmt.Errorf("job: runs: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == resultName:
			return true, nil
		case isID(filepath.Base(folder)) && name != configName && name != identitiesName && !strings.HasPrefix(name, "."):
			return true, nil
		}
	}
	return false, nil
}

// isID reports whether a name is one that a run has.
func isID(name string) bool {
	at, _, _ := strings.Cut(name, "-")
	_, err := time.Parse(idLayout, at)
	return err == nil
}

// removeUnrecorded removes the folders of runs that were killed before they had a record.
func removeUnrecorded(runs string) error {
	entries, err := os.ReadDir(runs)
	if err != nil {
		return fmt.Errorf("job: runs: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !isID(e.Name()) {
			continue
		}
		folder := filepath.Join(runs, e.Name())
		has, err := recorded(folder)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("job: runs: %w", err)
		}
	}
	return nil
}

// writeJSON writes a file that says whether it is what was written.
func writeJSON(path string, v any) error {
	return atomicfile.WriteFile(path, func(w io.Writer) error {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		_, err := w.Write(checksum.Seal(text.Bytes()))
		return err
	})
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if data, err = checksum.Open(data); err != nil {
		return fmt.Errorf("job: %s: %w", path, err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("job: %s: %w", path, err)
	}
	return nil
}
