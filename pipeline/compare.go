package pipeline

import (
	"context"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// CompareConfig says which prompts two model folders complete.
type CompareConfig struct {
	Model   string   `json:"model" yaml:"model"`
	Policy  string   `json:"policy" yaml:"policy"`
	Prompts []string `json:"prompts" yaml:"prompts"`
	// MaxTokens bounds a completion.
	MaxTokens int `json:"max_tokens" yaml:"max_tokens"`
}

// Validate reports every setting that can't be used, joined.
func (c CompareConfig) Validate() error {
	var k check
	k.that(c.Model != "", "--model", "", "the reference model folder")
	k.that(c.Policy != "", "--policy", "", "the policy model folder")
	k.that(len(c.Prompts) > 0 && !slices.Contains(c.Prompts, ""), "--prompt", "", "a text to complete")
	k.that(c.MaxTokens >= 1, "--max-tokens", c.MaxTokens, "1 or more")
	return k.err()
}

// Comparison is a prompt with the greedy completions of both models.
type Comparison struct {
	Prompt    string `json:"prompt"`
	Reference string `json:"reference"`
	Policy    string `json:"policy"`
}

// Compare completes every prompt with both models. On error it returns the
// comparisons that were finished.
func Compare(ctx context.Context, cfg CompareConfig, rt Runtime) ([]Comparison, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	reference, err := openGenerator(cfg.Model, rt)
	if err != nil {
		return nil, err
	}
	defer reference.model.Close()
	policy, err := openGenerator(cfg.Policy, rt)
	if err != nil {
		return nil, err
	}
	defer policy.model.Close()
	var all []Comparison
	for _, prompt := range cfg.Prompts {
		c := Comparison{Prompt: prompt}
		if c.Reference, err = reference.complete(ctx, prompt, cfg.MaxTokens); err != nil {
			return all, err
		}
		if c.Policy, err = policy.complete(ctx, prompt, cfg.MaxTokens); err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// generator completes prompts with a model folder: its tokenizer, its ONNX
// file, its end token.
type generator struct {
	encoder *encode.Encoder
	model   LanguageModel
}

func openGenerator(path string, rt Runtime) (*generator, error) {
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
	return &generator{encoder: enc, model: lm}, nil
}

// complete continues a plain prompt by at most limit tokens, up to the model's
// end token, which is not part of the text.
func (g *generator) complete(ctx context.Context, prompt string, limit int) (string, error) {
	ids, err := g.encoder.Prompt(datasets.Text{Plain: prompt})
	if err != nil {
		return "", err
	}
	stop := g.encoder.EOS()
	out, err := g.model.Generate(ctx, ids, limit, stop)
	if err != nil {
		return "", err
	}
	if n := len(out); n > 0 && slices.Contains(stop, out[n-1]) {
		out = out[:n-1]
	}
	return g.encoder.Decode(out), nil
}
