package pipeline

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// CompareConfig says which prompts two model folders complete, and how.
type CompareConfig struct {
	Model     string `json:"model" yaml:"model"`
	ModelFile string `json:"model_file,omitempty" yaml:"model_file,omitempty"`
	Policy    string `json:"policy" yaml:"policy"`
	// ChatTemplate is auto (the model's), none, or a file. Where there is one, a prompt
	// of text is a user's message, unless it comes from a pair of texts.
	ChatTemplate string `json:"chat_template" yaml:"chat_template"`
	// Prompts are texts; File names a data file or, ending in .txt, one prompt a
	// line; Run takes prompts that a training run held out.
	Prompts []string `json:"prompts,omitempty" yaml:"prompts,omitempty"`
	File    string   `json:"file,omitempty" yaml:"file,omitempty"`
	Run     string   `json:"run,omitempty" yaml:"run,omitempty"`
	// Cache is the one that Run was trained on, where that lies elsewhere than Run says.
	Cache   string           `json:"cache,omitempty" yaml:"cache,omitempty"`
	Reading datasets.Options `json:"reading" yaml:"reading"`
	// Limit bounds the prompts of File and Run.
	Limit int `json:"limit" yaml:"limit"`
	// MaxTokens bounds a completion.
	MaxTokens int      `json:"max_tokens" yaml:"max_tokens"`
	Sampling  Sampling `json:"sampling" yaml:"sampling"`
	// Report, where given, is a run folder whose report gets the completions.
	Report string `json:"report,omitempty" yaml:"report,omitempty"`
}

// DefaultCompareConfig holds the defaults of compare: greedy, 60 tokens, 5 prompts.
func DefaultCompareConfig() CompareConfig {
	return CompareConfig{
		ChatTemplate: encode.DefaultOptions().ChatTemplate, Reading: datasets.DefaultOptions(),
		Limit: 5, MaxTokens: 60, Sampling: DefaultSampling(),
	}
}

// Validate reports every setting that can't be used, joined.
func (c CompareConfig) Validate() error {
	var k check
	k.that(c.Model != "", "--model", "", "the reference model folder")
	k.that(c.Policy != "", "--policy", "", "the policy model folder")
	k.that(len(c.Prompts) > 0 && !slices.Contains(c.Prompts, "") || c.File != "" || c.Run != "",
		"--prompt", "", "a text to complete, or prompts by --prompts FILE or --held-out RUN")
	k.that(c.Limit >= 1, "--limit", c.Limit, "1 or more prompts")
	k.that(c.MaxTokens >= 1, "--max-tokens", c.MaxTokens, "1 or more")
	c.Sampling.validate(&k)
	return k.err()
}

// Comparison is a prompt with the completions of both models.
type Comparison struct {
	Prompt    string `json:"prompt"`
	Reference string `json:"reference"`
	Policy    string `json:"policy"`
	// PromptIDs are what the models read, ReferenceIDs and PolicyIDs what they wrote, with
	// the end token if they came to it.
	PromptIDs    []int32 `json:"prompt_ids"`
	ReferenceIDs []int32 `json:"reference_ids"`
	PolicyIDs    []int32 `json:"policy_ids"`
}

// Typing receives a comparison as it is written: the prompt, then the pieces of each
// model's completion. who is "prompt", "reference" or "policy"; an empty piece
// ends a completion. It may be nil.
type Typing func(who, piece string)

func (t Typing) write(who, piece string) {
	if t != nil {
		t(who, piece)
	}
}

// Compare completes every prompt with both models, and writes the report of cfg.Report
// if that is given. On error it returns the comparisons that were finished.
func Compare(ctx context.Context, cfg CompareConfig, rt Runtime, typing Typing) ([]Comparison, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Report != "" {
		if _, err := LoadRunConfig(cfg.Report); err != nil {
			return nil, err
		}
	}
	reference, err := openGenerator(cfg, cfg.Model, cfg.ModelFile, rt)
	if err != nil {
		return nil, err
	}
	defer reference.model.Close()
	policy, err := openGenerator(cfg, cfg.Policy, "", rt)
	if err != nil {
		return nil, err
	}
	defer policy.model.Close()
	prompts, err := cfg.prompts(ctx, reference.encoder)
	if err != nil {
		return nil, err
	}
	var all []Comparison
	for i, p := range prompts {
		c := Comparison{Prompt: p.text, PromptIDs: p.ids}
		typing.write("prompt", p.text)
		c.ReferenceIDs, c.Reference, err = reference.complete(ctx, p.ids, cfg, i, func(s string) { typing.write("reference", s) })
		if err != nil {
			return all, err
		}
		c.PolicyIDs, c.Policy, err = policy.complete(ctx, p.ids, cfg, i, func(s string) { typing.write("policy", s) })
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	if cfg.Report != "" {
		err = writeCompletions(ctx, cfg, all)
	}
	return all, err
}

// generator completes prompts with a model folder: its tokenizer, its ONNX
// file, its end token.
type generator struct {
	encoder *encode.Encoder
	model   LanguageModel
}

func openGenerator(cfg CompareConfig, path, file string, rt Runtime) (*generator, error) {
	dir, err := FindModel(path, file)
	if err != nil {
		return nil, err
	}
	if err := dir.verify(); err != nil {
		return nil, err
	}
	opt := encode.DefaultOptions()
	opt.ChatTemplate = cfg.ChatTemplate
	enc, err := encode.Open(dir.Root, opt)
	if err != nil {
		return nil, err
	}
	lm, err := rt.OpenLanguageModel(dir.ONNX)
	if err != nil {
		return nil, err
	}
	return &generator{encoder: enc, model: lm}, nil
}

// complete continues a prompt up to the model's end token, which is among the tokens and not
// part of the text. Both models draw the same stream for completion number n. emit gets the text
// piece by piece, each a whole number of characters, and at last "".
func (g *generator) complete(ctx context.Context, prompt []int32, cfg CompareConfig, n int, emit func(string)) (ids []int32, text string, err error) {
	stop := g.encoder.EOS()
	s := newSampler(cfg.Sampling, n)
	var said []int32
	shown := ""
	ids, err = g.model.Generate(ctx, prompt, Generation{Limit: cfg.MaxTokens, Stop: stop, Choose: func(logits []float32) int32 {
		id := s.choose(logits)
		if !slices.Contains(stop, id) {
			said = append(said, id)
			if piece := unshown(wholeCharacters(g.encoder.Decode(said)), shown); piece != "" {
				emit(piece)
				shown += piece
			}
		}
		return id
	}})
	if err != nil {
		return nil, "", err
	}
	text = g.encoder.Decode(said)
	if piece := unshown(text, shown); piece != "" {
		emit(piece)
	}
	emit("")
	return ids, text, nil
}

// wholeCharacters leaves out the last character of a text that goes on: bytes of
// it can be missing.
func wholeCharacters(text string) string {
	_, size := utf8.DecodeLastRuneInString(text)
	return text[:len(text)-size]
}

// unshown is what text has beyond what was shown of it; nothing where a later token
// changed what stands before it.
func unshown(text, shown string) string {
	if !strings.HasPrefix(text, shown) {
		return ""
	}
	return text[len(shown):]
}
