package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/loss"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// Inspection says what a path is. Exactly one of the pointers is set.
type Inspection struct {
	Path string `json:"path"`
	// Kind is "reference cache", "sweep", "run", "checkpoint", "model" or "data".
	Kind       string                 `json:"kind"`
	Cache      *CacheDescription      `json:"cache,omitempty"`
	Sweep      *SweepResult           `json:"sweep,omitempty"`
	Run        *RunDescription        `json:"run,omitempty"`
	Checkpoint *CheckpointDescription `json:"checkpoint,omitempty"`
	Model      *ModelDescription      `json:"model,omitempty"`
	Data       *datasets.Description  `json:"data,omitempty"`
	// Files are those of a folder of data, of which Data describes the first.
	Files []string `json:"files,omitempty"`
}

// RunDescription is what a run folder holds.
type RunDescription struct {
	Config      TrainConfig `json:"config"`
	Checkpoints []int64     `json:"checkpoint_steps"`
}

// CheckpointDescription is what a PEFT adapter folder holds.
type CheckpointDescription struct {
	Head      string            `json:"head"`
	Rank      int               `json:"rank"`
	Alpha     float64           `json:"alpha"`
	V         int               `json:"v"`
	D         int               `json:"d"`
	BaseModel string            `json:"base_model"`
	Step      int64             `json:"step,omitempty"`
	Held      Values            `json:"held_out,omitempty"`
	Identity  map[string]string `json:"cache_identity,omitempty"`
}

// ModelDescription is what an ONNX model is to this program.
type ModelDescription struct {
	File   string   `json:"file"`
	SHA256 string   `json:"sha256"`
	V      int      `json:"v"`
	D      int      `json:"d"`
	Head   string   `json:"head"`
	DType  string   `json:"head_dtype"`
	Tied   bool     `json:"tied"`
	Inputs []string `json:"inputs"`
	Layers int      `json:"cache_layers"`
	Nodes  int      `json:"nodes"`
}

// Inspect finds out what path is, by what it holds, and describes it. rows asks
// for that many sample rows of a cache or of data.
func Inspect(ctx context.Context, path string, opt datasets.Options, rows int) (Inspection, error) {
	in := Inspection{Path: path}
	info, err := os.Stat(path)
	if err != nil {
		return in, fmt.Errorf("pipeline: inspect: %w", err)
	}
	has := func(name string) bool { return info.IsDir() && isFile(filepath.Join(path, name)) }
	switch {
	case info.IsDir() && refcache.IsCache(path):
		in.Kind = "reference cache"
		in.Cache, err = describeCache(path, rows)
	case info.IsDir() && IsSweep(path):
		in.Kind = "sweep"
		in.Sweep, err = describeSweep(path)
	case has(configName) && exists(filepath.Join(path, checkpointsName)):
		in.Kind = "run"
		in.Run, err = describeRun(path)
	case has(models.AdapterConfigFile):
		in.Kind = "checkpoint"
		in.Checkpoint, err = describeCheckpoint(path)
	case filepath.Ext(path) == ".onnx" || info.IsDir() && holdsModel(path):
		in.Kind = "model"
		in.Model, err = describeModel(path)
	default:
		in.Kind = "data"
		in.Data, in.Files, err = describeData(ctx, path, opt, rows)
	}
	return in, err
}

// holdsModel reports whether a folder has an .onnx file where models have it.
func holdsModel(path string) bool {
	for _, pattern := range []string{"*.onnx", "onnx/*.onnx"} {
		if names, err := filepath.Glob(filepath.Join(path, pattern)); err == nil && len(names) > 0 {
			return true
		}
	}
	return false
}

// CacheDescription is a cache and its first rows.
type CacheDescription struct {
	refcache.Summary
	Sample []CacheRow `json:"sample,omitempty"`
}

// CacheRow is a row of a cache without its features.
type CacheRow struct {
	ID             string  `json:"id"`
	PromptTokens   int     `json:"prompt_tokens"`
	ChosenTokens   int     `json:"chosen_tokens"`
	RejectedTokens int     `json:"rejected_tokens"`
	ChosenLogps    float64 `json:"chosen_ref_logps"`
	RejectedLogps  float64 `json:"rejected_ref_logps"`
	Weight         float32 `json:"weight"`
}

func describeCache(path string, rows int) (*CacheDescription, error) {
	summary, err := refcache.Describe(path)
	if err != nil || !summary.Complete || summary.Shard != nil || rows == 0 {
		return &CacheDescription{Summary: summary}, err
	}
	d := &CacheDescription{Summary: summary}
	cache, err := refcache.Open(path)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	var r refcache.Row
	for i := range min(int64(rows), cache.Len()) {
		if err := cache.Row(i, &r); err != nil {
			return nil, err
		}
		d.Sample = append(d.Sample, CacheRow{
			ID: r.ID.String(), PromptTokens: len(r.Prompt), ChosenTokens: len(r.Chosen), RejectedTokens: len(r.Rejected),
			ChosenLogps:   loss.Sum(r.ChosenRefLogps, 1, len(r.Chosen)),
			RejectedLogps: loss.Sum(r.RejectedRefLogps, 1, len(r.Rejected)), Weight: r.Weight,
		})
	}
	return d, nil
}

// layoutRows is how many rows of data are looked at to tell their layout.
const layoutRows = 100

// describeData looks at a data file, or at the first one of a folder.
func describeData(ctx context.Context, path string, opt datasets.Options, rows int) (*datasets.Description, []string, error) {
	r, err := datasets.Open([]string{path}, opt)
	if err != nil {
		return nil, nil, &DataError{fmt.Errorf("no reference cache, sweep, run, checkpoint or model, and no data: %w", err)}
	}
	files := r.Files()
	if err := r.Close(); err != nil {
		return nil, nil, err
	}
	d, err := datasets.Describe(ctx, files[0], opt, max(rows, layoutRows))
	if err != nil {
		return nil, nil, &DataError{err}
	}
	d.Sample = d.Sample[:min(rows, len(d.Sample))]
	return &d, files, nil
}

func describeRun(path string) (*RunDescription, error) {
	cfg, err := LoadRunConfig(path)
	if err != nil {
		return nil, err
	}
	steps, err := checkpointSteps(path)
	return &RunDescription{Config: cfg, Checkpoints: steps}, err
}

// describeSweep ranks the runs of a sweep by what they have written so far.
func describeSweep(path string) (*SweepResult, error) {
	r, err := currentSweep(path)
	return &r, err
}

func describeCheckpoint(path string) (*CheckpointDescription, error) {
	h, config, err := models.ReadAdapter(path)
	if err != nil {
		return nil, err
	}
	d := &CheckpointDescription{Head: h.Kind(), Rank: config.R, Alpha: config.Alpha, BaseModel: config.BaseModel}
	d.V, d.D = h.Shape()
	state, err := readState(path)
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	d.Step, d.Held, d.Identity = state.Step, state.After, state.Identity
	return d, err
}

func describeModel(path string) (*ModelDescription, error) {
	dir, err := FindModel(path, "")
	if err != nil {
		return nil, err
	}
	m, err := onnx.Load(dir.ONNX)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	io, err := m.IO()
	if err != nil {
		return nil, err
	}
	head, err := m.FindHead()
	if err != nil {
		return nil, err
	}
	d := &ModelDescription{
		File: dir.ONNX, V: head.V, D: head.D, Head: head.Form, DType: head.DType.String(), Tied: head.Tied,
		Layers: len(io.Cache) / 2, Nodes: len(m.Graph.Nodes),
	}
	for _, v := range m.Graph.Inputs {
		d.Inputs = append(d.Inputs, v.Name)
	}
	d.SHA256, err = m.SHA256()
	return d, err
}
