package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var sharedDir = filepath.Join("..", "..", "..", "shared")

// shared returns the path of a file in the shared folder beside the checkout
// and skips the test where that is absent.
func shared(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{sharedDir}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no shared folder beside the checkout: %v", err)
	}
	return path
}

func load(t testing.TB, path string) *Tokenizer {
	t.Helper()
	tok, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestGoldenIDs holds published tokenizers against ids of the reference.
func TestGoldenIDs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(shared(t, "tokenizers", "GOLDEN.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	toks := map[string]*Tokenizer{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		var row struct {
			Tokenizer, Text, Engine string
			IDs                     []int32
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		tok := toks[row.Tokenizer]
		if tok == nil {
			tok = load(t, shared(t, "tokenizers", row.Tokenizer, "tokenizer.json"))
			toks[row.Tokenizer] = tok
		}
		if row.Engine == "sentencepiece 0.1.97" && row.Text[:1] == " " {
			row.IDs = leadingSpace[row.Text]
		}
		checkIDs(t, tok, row.Text, row.IDs)
		if row.Tokenizer == "gpt2" { // has every byte and no normalizer
			if got := tok.Decode(row.IDs, false); got != row.Text {
				t.Errorf("Decode(Encode(%q)) = %q", row.Text, got)
			}
		}
	}
}

// leadingSpace holds what tokenizers 0.23.2 and @huggingface/tokenizers make of
// texts that begin with a space, by mistral-7b-instruct-v0.3's tokenizer.json.
// SentencePiece itself, which those rows come from, puts one more space in
// front; a Metaspace pre-tokenizer does not where there is one already.
var leadingSpace = map[string][]int32{
	"    indented\n\t\tmixed": {3055, 1944, 13481, 781, 780, 780, 29487, 3930},
}

// TestModelIDs holds encoding against the ids that the trained models' own
// log-probabilities were taken on: what the post-processor puts in front, then
// prompt and completion, encoded apart.
func TestModelIDs(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"stories260K", "tinystories-ple"} {
		t.Run(model, func(t *testing.T) {
			tok := load(t, shared(t, "models", model, "tokenizer.json"))
			data, err := os.ReadFile(shared(t, "models", model, "golden_logprobs.json"))
			if err != nil {
				t.Fatal(err)
			}
			var rows []struct {
				Prompt, Completion string
				IDs                []int32
				PromptLen          int `json:"prompt_len"`
			}
			if err := json.Unmarshal(data, &rows); err != nil {
				t.Fatal(err)
			}
			before, after := tok.Added()
			if len(after) > 0 {
				t.Errorf("Added() = _, %v, want nothing", after)
			}
			for _, row := range rows {
				prompt, completion := row.IDs[:row.PromptLen], row.IDs[row.PromptLen:]
				if !slices.Equal(prompt[:len(before)], before) {
					t.Fatalf("ids of %.40q start with %v, want %v", row.Prompt, prompt[:len(before)], before)
				}
				checkIDs(t, tok, row.Prompt, prompt[len(before):])
				checkIDs(t, tok, row.Completion, completion)
			}
		})
	}
}
