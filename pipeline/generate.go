package pipeline

import (
	"context"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// A Generator completes prompts with a model folder: its tokenizer, its ONNX
// file, its end token.
type Generator struct {
	encoder *encode.Encoder
	model   LanguageModel
}

// OpenGenerator opens a model folder for generation.
func OpenGenerator(path string, rt Runtime) (*Generator, error) {
	dir, err := FindModel(path, "")
	if err != nil {
		return nil, err
	}
	enc, err := encode.Open(dir.Root, encode.DefaultOptions())
	if err != nil {
		return nil, err
	}
	lm, err := rt.OpenLanguageModel(dir.ONNX)
	if err != nil {
		return nil, err
	}
	return &Generator{encoder: enc, model: lm}, nil
}

// Complete continues a plain prompt greedily by at most limit tokens, up to the
// model's end token, which is not part of the text.
func (g *Generator) Complete(ctx context.Context, prompt string, limit int) (string, error) {
	ids, err := g.encoder.Prompt(datasets.Text{Plain: prompt})
	if err != nil {
		return "", err
	}
	out, err := g.model.Generate(ctx, ids, limit, g.encoder.EOS())
	if err != nil {
		return "", err
	}
	for i, id := range out {
		if slices.Contains(g.encoder.EOS(), id) {
			out = out[:i]
			break
		}
	}
	return g.encoder.Decode(out), nil
}

// Close frees the model.
func (g *Generator) Close() error { return g.model.Close() }
