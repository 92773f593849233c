package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// sweepName is the file that makes a folder a sweep; sweepFormat is its version.
const (
	sweepName   = "sweep.json"
	sweepFormat = 1
)

// SweepResult says what a sweep did; it is sweep.json in its folder, from the first step on.
type SweepResult struct {
	Format int    `json:"format"`
	Out    string `json:"out"`
	// Axes are the settings that differ between runs, Config all others.
	Axes   []SweepAxis `json:"axes"`
	Config TrainConfig `json:"config"`
	// Runs are ranked by Metric of the held-out pairs, the best first; of equal ones the one of
	// lower KL, then the earlier combination. Those without a value are last.
	Runs []SweepRun `json:"runs"`
	// Metric is Config.BestMetric, except that losses of different objectives do not compare:
	// runs whose objective differs are ranked by rewards/accuracies instead of loss.
	Metric string `json:"metric"`
	// Best names the first of Runs, and Checkpoint is the link to what it hands over. Both
	// are empty before the end and where nothing is held out.
	Best       string  `json:"best,omitempty"`
	Checkpoint string  `json:"checkpoint,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
}

// SweepRun is one run of a sweep.
type SweepRun struct {
	// Name is its folder in the sweep's; Settings holds the values of the axes by their keys.
	Name     string            `json:"name"`
	Settings map[string]string `json:"settings"`
	// Result is that of its newest checkpoint while it trains; nil before the first.
	Result *TrainResult `json:"result,omitempty"`
	// Failed says why the run could not go on.
	Failed string `json:"failed,omitempty"`
	// Front says that no other run has both an accuracy as high and a KL as low, one of
	// them strictly better: the Pareto front of rewards/accuracies and kl.
	Front bool `json:"front"`
}

// accuracyMetric and klMetric span the plane in which runs are compared.
const (
	accuracyMetric = "rewards/accuracies"
	klMetric       = "kl"
)

// Get returns a held-out metric of what the run hands over, NaN where there is none.
func (r *SweepRun) Get(metric string) float64 {
	if r.Result == nil || r.Failed != "" {
		return Values(nil).Get(metric)
	}
	return r.Result.After.Get(metric)
}

// IsSweep reports whether a folder holds a sweep.
func IsSweep(path string) bool { return isFile(filepath.Join(path, sweepName)) }

// LoadSweep reads the settings and axes that a sweep was started with. The error wraps
// fs.ErrNotExist where the folder holds none.
func LoadSweep(path string) (TrainConfig, []SweepAxis, error) {
	r, err := readSweep(path)
	r.Config.Out, r.Config.Resume = path, true
	return r.Config, r.Axes, err
}

func readSweep(path string) (SweepResult, error) {
	file := filepath.Join(path, sweepName)
	r := SweepResult{Config: DefaultTrainConfig()}
	if err := decodeJSON(file, &r); err != nil {
		return SweepResult{}, err
	}
	if r.Format != sweepFormat {
		return SweepResult{}, fmt.Errorf("pipeline: %s: format %d, want %d", file, r.Format, sweepFormat)
	}
	for _, one := range r.Runs {
		if !filepath.IsLocal(one.Name) {
			return SweepResult{}, fmt.Errorf("pipeline: %s: run %q, want a folder below", file, one.Name)
		}
	}
	r.Out = path
	return r, nil
}

// result is that of a sweep which has not begun.
func (p *SweepPlan) result() SweepResult {
	r := SweepResult{Format: sweepFormat, Out: p.Out, Axes: p.axes, Config: p.base, Metric: rankMetric(p.cfgs, p.base)}
	for i, cfg := range p.cfgs {
		settings := map[string]string{}
		for _, a := range p.axes {
			settings[a.Key] = fmt.Sprint(fieldOf(&cfg, a.Key).Interface())
		}
		r.Runs = append(r.Runs, SweepRun{Name: p.Runs[i], Settings: settings})
	}
	return r
}

// rankMetric is what runs of these settings, which are valid, are ranked by.
func rankMetric(cfgs []TrainConfig, base TrainConfig) string {
	first, _ := cfgs[0].lossSettings()
	differs := func(c TrainConfig) bool {
		s, _ := c.lossSettings()
		return s != first
	}
	if base.BestMetric == "loss" && slices.ContainsFunc(cfgs, differs) {
		return accuracyMetric
	}
	return base.BestMetric
}

// conclude ranks the runs by what they wrote, and writes sweep.json, the link to the best and
// the report.
func (r *SweepResult) conclude() error {
	if err := r.collect(); err != nil {
		return err
	}
	r.rank()
	if r.Best != "" {
		best := r.Runs[0]
		r.Checkpoint = filepath.Join(r.Out, bestName)
		if err := atomicfile.Symlink(filepath.Join(best.Name, filepath.Base(best.Result.Checkpoint)), filepath.Join(r.Out, bestName)); err != nil {
			return err
		}
	}
	return errors.Join(r.write(), r.writeReport())
}

func (r *SweepResult) write() error {
	return atomicfile.WriteFile(filepath.Join(r.Out, sweepName), func(w io.Writer) error { return writeJSON(w, r) })
}

// collect reads the result of every run: its summary or, while it trains, the state of its
// newest checkpoint.
func (r *SweepResult) collect() error {
	for i := range r.Runs {
		one := &r.Runs[i]
		result, err := readResult(filepath.Join(r.Out, one.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		one.Result = &result
	}
	return nil
}

func readResult(run string) (r TrainResult, err error) {
	data, err := os.ReadFile(filepath.Join(run, summaryName))
	if err == nil {
		if err := json.Unmarshal(data, &r); err != nil {
			return r, fmt.Errorf("pipeline: %s: %w", filepath.Join(run, summaryName), err)
		}
		return r, nil
	}
	last := filepath.Join(run, lastName)
	state, err := readState(last)
	return TrainResult{
		Out: run, Checkpoint: last, CheckpointStep: state.Step, Steps: state.Step, Before: state.Before, After: state.After,
	}, err
}

// rank sorts the runs, names the best and marks the front.
func (r *SweepResult) rank() {
	by := r.Config
	if r.Metric != by.BestMetric {
		by.BestMetric, by.BestDirection = r.Metric, autoDirection
	}
	slices.SortStableFunc(r.Runs, func(a, b SweepRun) int {
		if c := compareBy(a.Get(r.Metric), b.Get(r.Metric), by.better); c != 0 {
			return c
		}
		return compareBy(a.Get(klMetric), b.Get(klMetric), func(x, y float64) bool { return x < y })
	})
	r.Best = ""
	if len(r.Runs) > 0 && finite(r.Runs[0].Get(r.Metric)) {
		r.Best = r.Runs[0].Name
	}
	for i := range r.Runs {
		r.Runs[i].Front = r.onFront(i)
	}
}

// compareBy compares two figures: the better one first, one that is not finite last.
func compareBy(a, b float64, better func(a, b float64) bool) int {
	switch {
	case !finite(a) && !finite(b):
		return 0
	case !finite(b) || finite(a) && better(a, b):
		return -1
	case !finite(a) || better(b, a):
		return 1
	}
	return 0
}

// onFront reports whether no run has both an accuracy as high as run i's and a KL as low,
// one of them strictly better.
func (r *SweepResult) onFront(i int) bool {
	accuracy, kl := r.Runs[i].Get(accuracyMetric), r.Runs[i].Get(klMetric)
	if !finite(accuracy) || !finite(kl) {
		return false
	}
	return !slices.ContainsFunc(r.Runs, func(o SweepRun) bool {
		a, k := o.Get(accuracyMetric), o.Get(klMetric)
		return a >= accuracy && k <= kl && (a > accuracy || k < kl)
	})
}

// WriteSweepReport writes report.html into the folder of a sweep, from what its runs have
// written so far.
func WriteSweepReport(path string) error {
	r, err := currentSweep(path)
	if err != nil {
		return err
	}
	return r.writeReport()
}

// currentSweep reads a sweep and ranks its runs by what they have written so far.
func currentSweep(path string) (SweepResult, error) {
	r, err := readSweep(path)
	if err == nil {
		err = r.collect()
	}
	r.rank()
	return r, err
}
