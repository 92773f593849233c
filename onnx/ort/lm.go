//go:build cgo

package ort

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/onnx"
	ortgo "github.com/yalue/onnxruntime_go"
)

// LM is a whole decoder with its own logits, as published or as exported. It is
// not safe for concurrent use.
type LM struct {
	session  *session
	feed     *feeder
	io       *onnx.IO
	v        int
	logits   floats
	presents []onnx.CachePort // the cache ports that have a present output
}

// NewLM opens a model file, or in a folder model.onnx at its root or under onnx/.
func (r *Runtime) NewLM(path string, opt Options) (*LM, error) {
	path, err := modelFile(path)
	if err != nil {
		return nil, err
	}
	m, err := onnx.Load(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	io, err := m.IO()
	if err != nil {
		return nil, err
	}
	lm := &LM{feed: newFeeder(m.Graph, io), io: io, v: io.V, logits: floats{dtype: io.Logits.DType}}
	if lm.v == 0 {
		head, err := m.FindHead()
		if err != nil {
			return nil, fmt.Errorf("ort: the size of the vocabulary is not declared: %w", err)
		}
		lm.v = head.V
	}
	outputs := []string{io.Logits.Name}
	for _, c := range io.Cache {
		if c.Present != "" {
			outputs = append(outputs, c.Present)
			lm.presents = append(lm.presents, c)
		}
	}
	lm.session, err = r.newFileSession(path, lm.feed.names, outputs, opt)
	if err != nil {
		return nil, err
	}
	return lm, nil
}

// modelFile finds the model of a folder.
func modelFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, err
	}
	for _, name := range []string{"model.onnx", filepath.Join("onnx", "model.onnx")} {
		if p := filepath.Join(path, name); exists(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("ort: folder %q has neither model.onnx nor onnx/model.onnx", path)
}

// V is the number of tokens the logits cover.
func (lm *LM) V() int { return lm.v }

// Close frees the graph.
func (lm *LM) Close() error { return lm.session.close() }

// Logps returns the log-probs of seq[from:] in nats, each given all tokens before
// it. They are taken in float64 from the model's own logits. The logits
// of all of seq, or with num_logits_to_keep of seq[from:], are held at once: a graph
// of the older onnxruntime-genai can't read a sequence in pieces. from is at least 1: the
// first token is given nothing to be predicted from.
func (lm *LM) Logps(ctx context.Context, seq []int32, from int) ([]float64, error) {
	if from < 1 || from > len(seq) {
		return nil, fmt.Errorf("ort: log-probs of %d tokens from position %d, want a position in [1, %d]", len(seq), from, len(seq))
	}
	if err := checkIDs([][]int32{seq}, lm.v); err != nil {
		return nil, err
	}
	logps := make([]float64, len(seq)-from)
	if len(logps) == 0 {
		return logps, nil
	}
	rows, err := lm.read(ctx, new(Prefix), seq[:len(seq)-1], len(logps))
	if err != nil {
		return nil, err
	}
	row := make([]float32, lm.v)
	for t := range logps {
		lm.logits.read(row, (rows-len(logps)+t)*lm.v)
		if x, bad := firstNonFinite(row); bad {
			return nil, &NonFiniteError{"logits", 0, from + t - 1, x}
		}
		logps[t] = logp(row, int(seq[from+t]))
	}
	return logps, nil
}

// logp is log softmax(z)[target], in float64.
func logp(z []float32, target int) float64 {
	top := math.Inf(-1)
	for _, x := range z {
		top = max(top, float64(x))
	}
	sum := 0.0
	for _, x := range z {
		sum += math.Exp(float64(x) - top)
	}
	return float64(z[target]) - top - math.Log(sum)
}

// rows is how many positions of b get logits.
func (lm *LM) rows(b *batch) int {
	if b.keep > 0 && lm.io.KeepLogits.Name != "" {
		return b.keep
	}
	return b.width
}

// run leaves the logits [B,rows,V] in lm.logits and the grown cache in next, which
// may be nil when it is not wanted.
func (lm *LM) run(ctx context.Context, b *batch, next [][]byte) error {
	var vs values
	defer vs.destroy()
	inputs := lm.feed.inputs(&vs, b)
	rows, kept := int64(b.rows), int64(lm.rows(b))
	data := lm.logits.resize(rows * kept * int64(lm.v))
	outputs := []ortgo.Value{vs.tensor(lm.logits.dtype, data, rows, kept, int64(lm.v))}
	if next == nil {
		next = make([][]byte, len(lm.presents))
	}
	for i, c := range lm.presents {
		shape := []int64{rows, int64(c.Heads), int64(b.past + b.width), int64(c.HeadDim)}
		next[i] = grow(next[i], int(elements(shape)*c.DType.Bits()/8))
		outputs = append(outputs, vs.tensor(c.DType, next[i], shape...))
	}
	if vs.err != nil {
		return vs.err
	}
	return lm.session.run(ctx, inputs, outputs)
}

// Prefix is a sequence of tokens that an LM has read. With a graph that has a
// key-value cache it holds that cache, so that a further token costs one
// position; otherwise it holds the tokens, which are read again.
type Prefix struct {
	ids        []int32
	past, next [][]byte
}

// Len is the number of tokens read.
func (p *Prefix) Len() int { return len(p.ids) }

// cached reports whether every input of the cache has an output that continues it.
func (lm *LM) cached() bool {
	return len(lm.io.Cache) > 0 && len(lm.presents) == len(lm.io.Cache)
}

// read runs ids after the tokens of p, which then holds them too, and leaves the
// logits of the last positions, keep of them or more, in lm.logits. It returns of how many.
func (lm *LM) read(ctx context.Context, p *Prefix, ids []int32, keep int) (rows int, err error) {
	all := append(p.ids[:len(p.ids):len(p.ids)], ids...)
	b := newBatch([][]int32{all})
	if lm.cached() {
		b = newBatch([][]int32{ids})
		b.past, b.cache = len(p.ids), p.past
		p.next = grow(p.next, len(lm.presents))
	}
	b.keep = keep
	if err := lm.run(ctx, b, p.next); err != nil {
		return 0, err
	}
	p.ids, p.past, p.next = all, p.next, p.past
	return lm.rows(b), nil
}

// Next reads ids after the tokens of p, which is empty at first (new(Prefix)), and
// sets dst to the logits [V] of the token that follows. Not every graph can read more
// than one token after others. After an error p can't be gone on with.
func (lm *LM) Next(ctx context.Context, p *Prefix, ids []int32, dst []float32) ([]float32, error) {
	if len(ids) == 0 {
		return nil, errors.New("ort: no token to read")
	}
	if err := checkIDs([][]int32{ids}, lm.v); err != nil {
		return nil, err
	}
	rows, err := lm.read(ctx, p, ids, 1)
	if err != nil {
		return nil, err
	}
	dst = grow(dst, lm.v)
	lm.logits.read(dst, (rows-1)*lm.v)
	if x, bad := firstNonFinite(dst); bad {
		return nil, &NonFiniteError{"logits", 0, p.Len() - 1, x}
	}
	return dst, nil
}

// GenerateOptions say when generation ends and how a token is chosen.
type GenerateOptions struct {
	// MaxTokens is the most that are generated.
	MaxTokens int
	// Stop are the tokens that end a text; the one met is part of the result.
	Stop []int32
	// Choose picks a token from logits [V], which it may change; nil is Greedy.
	Choose func(logits []float32) int32
}

// Greedy returns the token of the greatest logit, the lowest id among equals.
func Greedy(logits []float32) int32 {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// Generate continues prompt and returns the new tokens. When ctx ends, the tokens
// so far come with its cause.
func (lm *LM) Generate(ctx context.Context, prompt []int32, opt GenerateOptions) ([]int32, error) {
	choose := opt.Choose
	if choose == nil {
		choose = Greedy
	}
	var out []int32
	var logits []float32
	p, ids := new(Prefix), prompt
	for len(out) < opt.MaxTokens {
		var err error
		if logits, err = lm.Next(ctx, p, ids, logits); err != nil {
			return out, err
		}
		token := choose(logits)
		out = append(out, token)
		for _, stop := range opt.Stop {
			if token == stop {
				return out, nil
			}
		}
		ids = out[len(out)-1:]
	}
	return out, nil
}
