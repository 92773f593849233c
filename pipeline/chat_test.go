package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// promptOfPairs are those of world.pairs.
var promptOfPairs = regexp.MustCompile(`^q[0-9]+:$`)

// worldTemplate opens each turn with its role in square brackets.
const worldTemplate = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"

// asked are the prompts that compare gives the reference, as text of the world's tokenizer.
func (w *world) asked(cfg CompareConfig) (texts []string) {
	w.t.Helper()
	w.rt.prompts = nil
	all, err := Compare(context.Background(), cfg, w.rt, nil)
	must(w.t, err)
	for i, c := range all {
		// The policy reads the same.
		if !slices.Equal(w.rt.prompts[2*i], c.PromptIDs) || !slices.Equal(w.rt.prompts[2*i+1], c.PromptIDs) {
			w.t.Errorf("the models read %v and %v, the comparison says %v", w.rt.prompts[2*i], w.rt.prompts[2*i+1], c.PromptIDs)
		}
		text := make([]byte, len(c.PromptIDs))
		for k, id := range c.PromptIDs {
			text[k] = byte(id)
		}
		texts = append(texts, string(text))
	}
	return texts
}

func TestCompareAsksChatModels(t *testing.T) {
	w := newWorld(t)
	w.write("model/chat_template.jinja", worldTemplate)
	w.write("other.jinja", "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")
	w.write("lines.txt", "one\ntwo\n")
	w.write("prompts.jsonl", `{"prompt": "one"}`+"\n"+`{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}`+"\n")
	w.write("pairs.jsonl", `{"prompt": "one:", "chosen": " y", "rejected": " n"}`+"\n"+
		`{"prompt": "two", "chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}]}`+"\n")
	for _, tt := range []struct {
		name, template, prompt, file string
		want                         []string
	}{
		{"text", "auto", "Hi", "", []string{"[user]Hi\n[assistant]"}},
		{"text as it is", "none", "Hi", "", []string{"Hi"}},
		{"text, another template", w.path("other.jinja"), "Hi", "", []string{"<user>Hi<assistant>"}},
		{"lines", "auto", "", "lines.txt", []string{"[user]one\n[assistant]", "[user]two\n[assistant]"}},
		{"lines as they are", "none", "", "lines.txt", []string{"one", "two"}},
		{"prompts alone", "auto", "", "prompts.jsonl", []string{"[user]one\n[assistant]", "[system]s\n[user]u\n[assistant]"}},
		{"prompts alone, no template", "none", "", "prompts.jsonl", []string{"one", "system: s\nuser: u\nassistant:"}},
		// Pairs of texts are trained on without a template.
		{"pairs", "auto", "", "pairs.jsonl", []string{"one:", "[user]two\n[assistant]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := w.compareConfig()
			cfg.ChatTemplate = tt.template
			if tt.prompt != "" {
				cfg.Prompts = []string{tt.prompt}
			}
			if tt.file != "" {
				cfg.File = w.path(tt.file)
			}
			if d := cmp.Diff(tt.want, w.asked(cfg)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// Prompts that a run held out are read as they were in training, template or none.
func TestCompareAsksAsTrained(t *testing.T) {
	w := newWorld(t)
	w.write("model/chat_template.jinja", worldTemplate)
	run := w.trained() // on pairs of texts
	cfg := w.compareConfig()
	cfg.Run = run.Out
	for _, text := range w.asked(cfg) {
		if !promptOfPairs.MatchString(text) {
			t.Errorf("the models read %q, want the prompt of a pair", text)
		}
	}
}

func TestComparePromptsThatAreNone(t *testing.T) {
	w := newWorld(t)
	w.write("chat.jsonl", `{"prompt": [{"role": "user", "content": "u"}]}`+"\n")
	w.write("empty.jsonl", "")
	w.write("empty.txt", "\n \n")
	w.write("other.jsonl", `{"prompt": 1}`+"\n"+`{"question": "?"}`+"\n")
	var template *encode.NoTemplateError
	var field *FieldError
	var row *datasets.RowError
	for file, kind := range map[string]any{"chat.jsonl": &template, "empty.jsonl": &field, "empty.txt": &field, "other.jsonl": &row} {
		cfg := w.compareConfig()
		cfg.File = w.path(file)
		if _, err := Compare(context.Background(), cfg, w.rt, nil); !errors.As(err, kind) {
			t.Errorf("%s: error is %v, want a %T", file, err, kind)
		}
	}
}

// Published chat models: the ids are those of the text that their templates are known to write.
func TestCompareAsksPublishedChatModels(t *testing.T) {
	shared, err := filepath.Abs(filepath.Join("..", "..", "shared", "tokenizers"))
	must(t, err)
	for _, tt := range []struct{ name, want string }{
		{"smollm2-instruct", "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
			"<|im_start|>user\nWhere is the station?<|im_end|>\n<|im_start|>assistant\n"},
		{"qwen2.5-instruct", "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n" +
			"<|im_start|>user\nWhere is the station?<|im_end|>\n<|im_start|>assistant\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := filepath.Join(shared, tt.name)
			if _, err := os.Stat(from); err != nil {
				t.Skipf("published tokenizers are not beside the checkout: %v", err)
			}
			w := newWorld(t)
			must(t, os.Remove(w.path("model/tokenizer_config.json")))
			must(t, os.Remove(w.path("model/tokenizer.json")))
			files, err := filepath.Glob(filepath.Join(from, "*"))
			must(t, err)
			for _, f := range files {
				must(t, os.Symlink(f, filepath.Join(w.path("model"), filepath.Base(f))))
			}
			opt := encode.DefaultOptions()
			opt.ChatTemplate = "none"
			enc, err := encode.Open(from, opt)
			must(t, err)
			for template, text := range map[string]string{"auto": tt.want, "none": "Where is the station?"} {
				want, err := enc.Prompt(datasets.Text{Plain: text})
				must(t, err)
				cfg := w.compareConfig("Where is the station?")
				cfg.ChatTemplate, cfg.MaxTokens = template, 1
				all, err := Compare(context.Background(), cfg, w.rt, nil)
				must(t, err)
				if d := cmp.Diff(want, all[0].PromptIDs); d != "" {
					t.Errorf("template %s, -want +got:\n%s", template, d)
				}
			}
		})
	}
}
