package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// reference is the frozen model, split: the backbone runs in the runtime, the LM
// head is scored by the engine that training uses too.
type reference struct {
	transformer
	engine     models.Engine
	vocabulary *models.Vocabulary
	encoder    *encode.Encoder
	identity   map[string]string
}

// splitModel is an ONNX file taken apart.
type splitModel struct {
	files      ModelDir
	model      *onnx.Model
	io         *onnx.IO
	head       *onnx.Head
	vocabulary *models.Vocabulary
}

// openSplit loads a model, finds its LM head and reads it.
func openSplit(path, file string) (*splitModel, error) {
	s, err := findSplit(path, file)
	if err != nil {
		return nil, err
	}
	if err := s.dense(); err != nil {
		return nil, errors.Join(err, s.model.Close())
	}
	return s, nil
}

// findSplit loads a model and finds its LM head.
func findSplit(path, file string) (*splitModel, error) {
	dir, err := FindModel(path, file)
	if err != nil {
		return nil, err
	}
	if err := dir.verify(); err != nil {
		return nil, err
	}
	m, err := onnx.Load(dir.ONNX)
	if err != nil {
		return nil, err
	}
	s := &splitModel{files: dir, model: m}
	if s.io, err = m.IO(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if s.head, err = m.FindHead(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return s, nil
}

// dense reads the LM head as float32.
func (s *splitModel) dense() error {
	weight, bias, err := s.head.Dense()
	if err != nil {
		return err
	}
	s.vocabulary = &models.Vocabulary{
		V: s.head.V, D: s.head.D, Weight: weight, Bias: bias, Scale: s.head.Scale, Softcap: s.head.Softcap,
	}
	return nil
}

// openBackbone opens everything in front of the LM head.
func (s *splitModel) openBackbone(rt Runtime) (Backbone, error) {
	m, err := s.model.Backbone(s.head, s.io.Presents()...)
	if err != nil {
		return nil, err
	}
	return rt.OpenBackbone(m, s.io)
}

func openReference(ctx context.Context, cfg PrecomputeConfig, rt Runtime) (*reference, error) {
	split, err := openSplit(cfg.Model, cfg.ModelFile)
	if err != nil {
		return nil, err
	}
	defer split.model.Close()
	r := &reference{vocabulary: split.vocabulary, transformer: transformer{d: split.vocabulary.D, spare: spareCaches(cfg.Memory)}}
	if r.encoder, err = encode.Open(split.files.Root, cfg.Encode); err != nil {
		return nil, err
	}
	if r.identity, err = cacheIdentity(ctx, cfg, split.model, r.encoder, rt); err != nil {
		return nil, err
	}
	if r.backbone, err = split.openBackbone(rt); err != nil {
		return nil, err
	}
	r.identity["continuation"] = r.backbone.Traits().Continuation.String()
	if r.engine, err = rt.OpenEngine(r.vocabulary); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reference) close() {
	if r.engine != nil {
		r.engine.Close()
	}
	if r.backbone != nil {
		r.backbone.Close()
	}
}

// cacheIdentity names everything that can move a number in the cache.
func cacheIdentity(ctx context.Context, cfg PrecomputeConfig, m *onnx.Model, enc *encode.Encoder, rt Runtime) (map[string]string, error) {
	model, err := m.SHA256()
	if err != nil {
		return nil, err
	}
	data, err := datasets.Fingerprint(ctx, cfg.Data, cfg.Reading.Mix...)
	if err != nil {
		return nil, err
	}
	columns, err := json.Marshal(cfg.Reading.Columns)
	if err != nil {
		return nil, fmt.Errorf("pipeline: column names: %w", err)
	}
	id := map[string]string{
		"model": model, "data": data, "features": string(cfg.Features),
		"batch_tokens": strconv.Itoa(cfg.BatchTokens), "part_pairs": strconv.Itoa(cfg.PartPairs),
		"memory": strconv.FormatInt(cfg.Memory, 10),
		"limit":  strconv.FormatInt(cfg.Limit, 10), "columns": string(columns),
	}
	maps.Copy(id, enc.Identity())
	maps.Copy(id, rt.Identity())
	return id, nil
}

func modelSHA256(path string) (string, error) {
	m, err := onnx.Load(path)
	if err != nil {
		return "", err
	}
	sum, err := m.SHA256()
	return sum, errors.Join(err, m.Close())
}

// logps scores the completion tokens of sequences from their features with the
// frozen head, in blocks of rows: never more than a block of logits exists.
func (r *reference) logps(ctx context.Context, batch []sequence, features [][]float32) ([][]float32, error) {
	var targets []int32
	var hidden []float32
	for i, s := range batch {
		targets = append(targets, s.ids[s.prompt:]...)
		hidden = append(hidden, features[i]...)
	}
	d, block := r.vocabulary.D, microTokens(r.vocabulary.V)
	all := make([]float32, 0, len(targets))
	var tokens models.Tokens
	for at := 0; at < len(targets); at += block {
		end := min(at+block, len(targets))
		rows := models.Rows{N: end - at, Hidden: hidden[at*d : end*d], Targets: targets[at:end]}
		if err := models.Forward(ctx, r.engine, rows, models.Addition{}, &tokens); err != nil {
			return nil, err
		}
		for _, p := range tokens.Logps {
			all = append(all, float32(p))
		}
	}
	logps := make([][]float32, len(batch))
	for i, s := range batch {
		logps[i], all = all[:s.completion()], all[s.completion():]
	}
	return logps, nil
}
