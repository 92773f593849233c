package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
	"github.com/dpo-pipe/dpo-pipe/internal/lockfile"
)

// A SweepAxis is a setting of train and the values that it takes in turn.
type SweepAxis struct {
	// Key is the name of the setting's flag, Values as they stand in run names.
	Key    string   `json:"key"`
	Values []string `json:"values"`
}

// sweepKeys are the settings that runs of one sweep may differ in. Runs that differ in
// seed or batch-pairs read other batches: each kind of batches is a pass of its own.
var sweepKeys = []string{
	"head", "rank", "alpha", "rslora", "loss", "beta", "label-smoothing", "f-divergence", "f-alpha", "ld-alpha", "wpo", "gamma",
	"nll-weight", "lambda", "tau", "lr", "schedule", "warmup", "weight-decay", "max-grad-norm", "epochs", "max-steps",
	"batch-pairs", "seed", "eval-every", "best-metric", "best-direction", "early-stop", "restore-best",
}

// sharedKeys are those that they may not differ in, with the reason.
var sharedKeys = map[string]string{
	"cache": "one cache is read for all runs", "model": "one cache is read for all runs", "model-file": "one cache is read for all runs",
	"data": "one cache is read for all runs", "out": "runs get folders in one --out", "engine": "one engine multiplies for all runs",
	"resume": "all runs of a sweep are resumed together", "eval-frac": "runs that hold out other pairs do not compare",
	"micro-tokens": "it moves no result", "save-every": "it moves no result", "log-every": "it moves no result",
	"keep": "it moves no result", "keep-best": "it moves no result",
}

// Bounds of a sweep: each run has three files open and a head in memory; a folder's name
// has at most 255 bytes on most systems.
const (
	maxSweepRuns = 256
	maxSweepName = 200
)

// ParseSweep reads KEY=V1,V2,… for each axis. Where ; is among the values it separates them
// instead, so that a loss may be a mix: loss=sigmoid;sigmoid:0.8,sft:0.2.
func ParseSweep(axes []string) (out []SweepAxis, err error) {
	for _, text := range axes {
		key, list, _ := strings.Cut(text, "=")
		field := "--sweep " + key
		if reason, shared := sharedKeys[key]; shared {
			return nil, &FieldError{field, list, "another setting: " + reason}
		}
		if !slices.Contains(sweepKeys, key) {
			return nil, &FieldError{"--sweep", text, "KEY=V1,V2,… with a KEY of " + strings.Join(sweepKeys, ", ")}
		}
		if slices.ContainsFunc(out, func(a SweepAxis) bool { return a.Key == key }) {
			return nil, &FieldError{field, list, "all its values in one --sweep"}
		}
		axis := SweepAxis{Key: key}
		for _, value := range sweepValues(list) {
			cfg := DefaultTrainConfig()
			if value, err = setField(&cfg, key, value); err != nil {
				return nil, err
			}
			if slices.Contains(axis.Values, value) {
				return nil, &FieldError{field, value, "each value once"}
			}
			axis.Values = append(axis.Values, value)
		}
		if key == "loss" && !strings.Contains(list, ";") && strings.Contains(list, ":") {
			return nil, &FieldError{field, list, "objectives separated by ; where one is a mix (a last ; may end the list)"}
		}
		out = append(out, axis)
	}
	return out, nil
}

func sweepValues(list string) []string {
	if strings.Contains(list, ";") {
		return strings.Split(strings.TrimSuffix(list, ";"), ";")
	}
	return strings.Split(list, ",")
}

// setField sets the setting of a flag, and returns the value as it is written in names:
// 1e-3 as 0.001.
func setField(cfg *TrainConfig, key, value string) (string, error) {
	field := fieldOf(cfg, key)
	if want, err := parseInto(field, value); err != nil {
		return "", &FieldError{"--sweep " + key, value, want}
	}
	return fmt.Sprint(field.Interface()), nil
}

// fieldOf is the field that a flag sets.
func fieldOf(cfg *TrainConfig, key string) reflect.Value {
	v := reflect.ValueOf(cfg).Elem()
	name := strings.ReplaceAll(key, "-", "_")
	for i := range v.NumField() {
		if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); tag == name {
			return v.Field(i)
		}
	}
	panic("pipeline: no setting is called " + key)
}

// parseInto sets a field from text; want says what text it takes.
func parseInto(field reflect.Value, text string) (want string, err error) {
	switch field.Kind() {
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		field.SetFloat(x)
		return "a number", err
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, field.Type().Bits())
		field.SetInt(n)
		return "a whole number", err
	case reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		field.SetUint(n)
		return "a whole number, 0 or more", err
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		field.SetBool(b)
		return "true or false", err
	}
	if text == "" {
		return "a value", errors.New("empty")
	}
	field.SetString(text)
	return "", nil
}

// A SweepPlan says which runs a sweep has.
type SweepPlan struct {
	Out string `json:"out"`
	// Runs are the names of their folders in Out. Passes counts the passes over the cache
	// that train them, which is one unless seed or batch-pairs are swept.
	Runs   []string `json:"runs"`
	Passes int      `json:"passes"`

	base TrainConfig
	axes []SweepAxis
	cfgs []TrainConfig
}

// PlanSweep makes the runs of a sweep: every combination of the values of axes, the last
// axis fastest, over the settings of base. A combination that can't be trained is refused by
// its name. Nothing is read or written but what base.Out holds already.
func PlanSweep(base TrainConfig, axes []SweepAxis) (SweepPlan, error) {
	var k check
	k.places(base)
	if err := k.err(); err != nil {
		return SweepPlan{}, err
	}
	base, err := base.located()
	if err != nil {
		return SweepPlan{}, err
	}
	p := SweepPlan{Out: base.Out, base: base, axes: axes}
	count := 1
	for _, a := range axes {
		count *= len(a.Values)
		if count > maxSweepRuns {
			return p, &FieldError{"--sweep", a.Key, fmt.Sprintf("fewer values: together at most %d runs", maxSweepRuns)}
		}
	}
	for i := range count {
		if err := p.add(i, count); err != nil {
			return p, err
		}
	}
	p.Passes = len(batchGroups(p.cfgs))
	return p, p.checkFolder()
}

// PlanTrain is [PlanSweep], or without axes the plan of one run in cfg.Out.
func PlanTrain(cfg TrainConfig, axes []SweepAxis) (SweepPlan, error) {
	if len(axes) > 0 {
		return PlanSweep(cfg, axes)
	}
	cfg, err := cfg.resolve()
	if err == nil {
		_, err = cfg.objective()
	}
	if err == nil {
		err = checkRun(cfg)
	}
	return SweepPlan{Out: cfg.Out, Runs: []string{"."}, Passes: 1}, err
}

// add makes combination i of count.
func (p *SweepPlan) add(i, count int) error {
	cfg := p.base
	var parts []string
	for _, a := range p.axes {
		count /= len(a.Values)
		value := a.Values[i/count%len(a.Values)]
		if _, err := setField(&cfg, a.Key, value); err != nil {
			return err
		}
		parts = append(parts, a.Key+"="+value)
	}
	name := runName(parts)
	if len(name) > maxSweepName || slices.Contains(p.Runs, name) {
		return &FieldError{"--sweep", name, fmt.Sprintf("values that name a folder, each another one, in at most %d bytes", maxSweepName)}
	}
	cfg.Out = filepath.Join(p.base.Out, name)
	err := cfg.Validate()
	if err == nil {
		_, err = cfg.objective()
	}
	if err != nil {
		return fmt.Errorf("pipeline: sweep %s: %w", name, err)
	}
	p.Runs, p.cfgs = append(p.Runs, name), append(p.cfgs, cfg)
	return nil
}

// runName joins settings to a name that every file system takes: in a mix of objectives
// : becomes - and , becomes +.
func runName(settings []string) string {
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = strings.Map(func(r rune) rune {
			if r > ' ' && r < 0x7f && !strings.ContainsRune(`/\"*<>?|`, r) {
				return r
			}
			return '_'
		}, strings.NewReplacer(":", "-", ",", "+").Replace(s))
	}
	return strings.Join(names, ",")
}

// checkFolder refuses a folder that holds something else, or a sweep that must not be gone
// on with.
func (p *SweepPlan) checkFolder() error {
	if !IsSweep(p.Out) {
		return checkNew(p.Out, "sweep")
	}
	if !p.base.Resume {
		return &RunExistsError{p.Out}
	}
	have, axes, err := LoadSweep(p.Out)
	if err != nil {
		return err
	}
	if a, b := axesText(axes), axesText(p.axes); a != b {
		return &SettingsError{Have: a, Want: b}
	}
	return sameRun(have, p.base)
}

// axesText is what was given on the command line.
func axesText(axes []SweepAxis) string {
	var parts []string
	for _, a := range axes {
		parts = append(parts, "--sweep "+a.Key+"="+strings.Join(a.Values, ";"))
	}
	return strings.Join(parts, " ")
}

// Sweep trains a head for every combination of the values of axes over the settings of base,
// all of them in one pass over the cache where their batches are the same: each micro-batch
// is multiplied with the frozen matrix once. A run's folder in base.Out holds the bytes
// that [Train] with its settings would have written. A run whose gradient is no longer
// finite ends and the others go on; where all do, Sweep fails. Cancelling ctx ends all behind
// the step in progress, with checkpoints, and base.Resume goes on with all.
func Sweep(ctx context.Context, base TrainConfig, axes []SweepAxis, engines Engines, report Reporter) (SweepResult, error) {
	p, err := PlanSweep(base, axes)
	if err != nil {
		return SweepResult{}, err
	}
	start := time.Now()
	r := p.result()
	var lock *lockfile.Lock
	defer func() {
		if lock != nil {
			lock.Release()
		}
	}()
	ends, err := trainAll(ctx, p.cfgs, engines, report, func() (err error) {
		if lock, err = p.create(); err != nil || IsSweep(p.Out) {
			return err
		}
		return r.write()
	})
	if err != nil {
		return SweepResult{}, err
	}
	var failed []error
	for i, end := range ends {
		if end.failed != nil {
			failed = append(failed, fmt.Errorf("%s: %w", r.Runs[i].Name, end.failed))
			r.Runs[i].Failed = end.failed.Error()
		}
	}
	r.Seconds = time.Since(start).Seconds()
	if err := r.conclude(); err != nil {
		return SweepResult{}, err
	}
	if len(failed) == len(ends) {
		return r, errors.Join(failed...)
	}
	return r, nil
}

// create makes the sweep's folder, locked.
func (p *SweepPlan) create() (*lockfile.Lock, error) {
	if err := os.MkdirAll(p.Out, 0o777); err != nil {
		return nil, fmt.Errorf("pipeline: create sweep folder: %w", err)
	}
	lock, err := lockfile.Acquire(p.Out)
	if err != nil {
		return nil, err
	}
	return lock, atomicfile.RemoveTemp(p.Out)
}
