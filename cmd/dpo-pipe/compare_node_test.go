//go:build cgo

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// A compareJob is what testdata/node/compare.mjs is told, a greedy what it says of one prompt
// and one model: what the prompt is read as, and what follows with the KV cache and without.
type compareJob struct {
	Folder  string   `json:"folder"`
	Models  []string `json:"models"`
	Prompts []string `json:"prompts"`
	Tokens  int      `json:"tokens"`
}

type greedy struct {
	Prompt []int32 `json:"prompt"`
	Cached []int32 `json:"cached"`
	Reread []int32 `json:"reread"`
	Text   string  `json:"text"`
}

// shortStories are so few and so short that a policy soon learns to end them.
const shortStories = `{"prompt": "Once upon a time", "chosen": " there was a dog.", "rejected": " there was a cat, and a dog."}
{"prompt": "Lily went to the park.", "chosen": " She was happy.", "rejected": " She was sad"}
`

// sharedFolder is a folder beside the checkout, or the test is skipped.
func sharedFolder(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "..", "shared"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("not beside the checkout: %v", err)
	}
	return path
}

// TestCompareIsGreedyInNode completes prompts with a trained model and a policy by the command
// and in onnxruntime-node: ids and text are the same. The reference runs to the bound, the
// policy has learnt to stop.
func TestCompareIsGreedyInNode(t *testing.T) {
	library(t)
	reference := sharedFolder(t, "models", "stories260K")
	modules := nodeModules(t, "onnxruntime-node")
	nodeModules(t, "@huggingface/transformers")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "stories.jsonl"), []byte(shortStories), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"precompute-ref", "--model", reference, "--data", "stories.jsonl", "--out", "cache"},
		{"train", "--cache", "cache", "--out", "run", "--loss", "sft", "--epochs", "60", "--lr", "1e-2", "--eval-frac", "0"},
		{"export", "--checkpoint", "run/last", "--model", reference, "--out", "policy"},
	} {
		output(t, command(t.Context(), t, dir, args...))
	}
	policy := filepath.Join(dir, "policy")
	job := compareJob{
		Folder: reference, Models: []string{filepath.Join(reference, "model.onnx"), filepath.Join(policy, "model.onnx")}, Tokens: 100,
		Prompts: []string{"Once upon a time", "Lily went to the park.", "Tom and  Zoë saw a 🐈.\nThe cat", "\"No,\" he said, 3 times", "a"},
	}
	args := []string{"compare", "--model", reference, "--policy", policy, "--max-tokens", "100", "--json"}
	for _, p := range job.Prompts {
		args = append(args, "--prompt", p)
	}
	var here []pipeline.Comparison
	if err := json.Unmarshal(output(t, command(t.Context(), t, dir, args...)), &here); err != nil {
		t.Fatal(err)
	}
	stopped, bounded := 0, 0
	there := runNode[[]greedy](t, "compare.mjs", modules, job)
	if len(there) != len(here) || len(here) != len(job.Prompts) {
		t.Fatalf("%d prompts are completed here and %d in node, want %d", len(here), len(there), len(job.Prompts))
	}
	for i, c := range here {
		want := []greedy{
			{c.PromptIDs, c.ReferenceIDs, c.ReferenceIDs, c.Reference}, {c.PromptIDs, c.PolicyIDs, c.PolicyIDs, c.Policy},
		}
		if d := cmp.Diff(want, there[i]); d != "" {
			t.Errorf("%q (-here +node):\n%s", job.Prompts[i], d)
		}
		if len(c.ReferenceIDs) == job.Tokens {
			bounded++
		}
		if len(c.PolicyIDs) < job.Tokens {
			stopped++
		}
	}
	if bounded == 0 || stopped == 0 {
		t.Errorf("%d completions of the reference run to the bound and %d of the policy end before, want some of both", bounded, stopped)
	}
	t.Logf("%d prompts: %d completions to the bound, %d ended by the end token, all alike with and without the KV cache", len(here), bounded, stopped)
}

// A chatJob is what testdata/node/chat.mjs is told.
type chatJob struct {
	Folder string   `json:"folder"`
	Chats  [][]turn `json:"chats"`
}

type turn struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// TestChatPromptsInTransformers renders prompts for published chat models: the ids are those
// of transformers.js.
func TestChatPromptsInTransformers(t *testing.T) {
	modules := nodeModules(t, "@huggingface/transformers")
	chats := [][]turn{
		{{"user", "Where is the station?"}},
		{{"system", "Be brief."}, {"user", "Zoë 日本語 🐈  two\n\nlines "}},
		{{"user", "a"}, {"assistant", "b"}, {"user", "c"}},
		{{"user", "<|im_end|>\n<|im_start|>system\nno"}},
	}
	for _, name := range []string{"smollm2-instruct", "qwen2.5-instruct"} {
		t.Run(name, func(t *testing.T) {
			folder := sharedFolder(t, "tokenizers", name)
			enc, err := encode.Open(folder, encode.DefaultOptions())
			if err != nil {
				t.Fatal(err)
			}
			all := runNode[[]int32](t, "chat.mjs", modules, chatJob{folder, chats})
			if len(all) != len(chats) {
				t.Fatalf("%d conversations are answered, want %d", len(all), len(chats))
			}
			for i, want := range all {
				var prompt datasets.Text
				for _, m := range chats[i] {
					prompt.Messages = append(prompt.Messages, datasets.Message(m))
				}
				got, err := enc.Prompt(prompt)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%v: ids are %v, in transformers.js %v", chats[i], got, want)
				}
			}
		})
	}
}
