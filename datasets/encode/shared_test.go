package encode

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// sharedDir returns a folder of real models and tokenizers beside the checkout.
func sharedDir(t *testing.T, parts ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{"..", "..", "..", "shared"}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("real models are not beside the checkout: %v", err)
	}
	return path
}

// opened keeps the encoders: large tokenizers take a second to read.
var opened = map[string]*Encoder{}

func openShared(t *testing.T, parts ...string) *Encoder {
	t.Helper()
	dir := sharedDir(t, parts...)
	if opened[dir] == nil {
		e, err := Open(dir, DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		opened[dir] = e
	}
	return opened[dir]
}

// The golden files' ids are those of prompt and completion encoded one by one, without a closing EOS. For a byte-level
// tokenizer that is the whole text; the SentencePiece kind puts a space of its own in front of the completion, which
// is not in the text.
func TestTrainedModels(t *testing.T) {
	for _, c := range []struct {
		name  string
		parts []string
		eos   int32
		space int32
	}{
		{"stories260K", []string{"models", "stories260K"}, 2, 410},
		{"tinystories-ple", []string{"models", "tinystories-ple"}, 0, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := openShared(t, c.parts...)
			data, err := os.ReadFile(filepath.Join(sharedDir(t, c.parts...), "golden_logprobs.json"))
			if err != nil {
				t.Fatal(err)
			}
			var golden []struct {
				Prompt, Completion string
				IDs                []int32
			}
			if err := json.Unmarshal(data, &golden); err != nil {
				t.Fatal(err)
			}
			for i, g := range golden {
				got, err := e.Encode(plain(g.Prompt, g.Completion, " something else"))
				if err != nil {
					t.Fatal(err)
				}
				want := g.IDs
				if n := len(got.Prompt); c.space >= 0 && want[n] == c.space {
					want = slices.Delete(want, n, n+1)
				}
				if want[len(want)-1] != c.eos {
					want = append(want, c.eos)
				}
				if diff := cmp.Diff(want, slices.Concat(got.Prompt, got.Chosen)); diff != "" {
					t.Errorf("row %d, apart=%t: want - got +\n%s", i, got.Apart, diff)
				}
			}
			t.Logf("%d rows", len(golden))
		})
	}
}

// Every folder with a tokenizer opens, by the layout it has.
func TestOpenPublished(t *testing.T) {
	for _, c := range []struct {
		parts    []string
		template bool
		bos      []int32
	}{
		{[]string{"models", "stories260K"}, false, []int32{1}},
		{[]string{"models", "stories260K", "variants"}, false, []int32{1}},
		{[]string{"models", "stories260K-hub", "onnx"}, false, []int32{1}},
		{[]string{"models", "tinystories-ple"}, false, nil},
		{[]string{"models", "third-party", "genai-tiny-random-llama-fp16"}, true, []int32{1}},
		{[]string{"tokenizers", "smollm2-instruct"}, true, nil},
		{[]string{"tokenizers", "qwen2.5-instruct"}, true, nil},
		{[]string{"tokenizers", "mistral-7b-instruct-v0.3"}, true, []int32{1}},
	} {
		e := openShared(t, c.parts...)
		if (e.template != nil) != c.template || !slices.Equal(e.prefix, c.bos) {
			t.Errorf("%v: template %t, BOS %v, want %t, %v", c.parts, e.template != nil, e.prefix, c.template, c.bos)
		}
	}
}

// Real conversations through real templates: the ids are those of the whole text, and say it.
func TestPublishedConversations(t *testing.T) {
	sharedDir(t, "tokenizers")
	r, err := datasets.Open([]string{sharedDir(t, "data", "hh-helpful-conversational", "dpo_helpfulness_val.jsonl")}, datasets.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var pairs []datasets.Pair
	for len(pairs) < 100 {
		p, err := r.Next(t.Context())
		if err == nil {
			pairs = append(pairs, p)
		}
	}
	for _, name := range []string{"smollm2-instruct", "qwen2.5-instruct", "mistral-7b-instruct-v0.3"} {
		e := openShared(t, "tokenizers", name)
		apart, refused := 0, 0
		for _, p := range pairs {
			got, err := e.Encode(p)
			if err != nil {
				refused++
				continue
			}
			if got.Apart {
				apart++
			}
			text, err := e.template.render(slices.Concat(p.Prompt.Messages, p.Chosen.Messages), false)
			if err != nil {
				t.Fatal(err)
			}
			joint, err := e.tok.Encode(text)
			if err != nil {
				t.Fatal(err)
			}
			all := slices.Concat(got.Prompt, got.Chosen)
			if !got.Apart && !got.Truncated && !slices.Equal(all, joint) {
				t.Errorf("%s row %d: ids differ from those of the whole text", name, p.Row)
			}
			if content := p.Chosen.Messages[0].Content; !got.Truncated && !strings.Contains(e.Decode(got.Chosen), strings.TrimSpace(content)) {
				t.Errorf("%s row %d: %q is not in %q", name, p.Row, content, e.Decode(got.Chosen))
			}
		}
		t.Logf("%s: %d pairs, %d apart, %d refused", name, len(pairs), apart, refused)
	}
}

// TRL's collator cuts the end of prompt+completion with keep_start, as we do.
func TestTruncationAsTRL(t *testing.T) {
	data, err := os.ReadFile(sharedDir(t, "golden", "trl_golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Examples []struct {
			Prompt   []int32 `json:"prompt_ids"`
			Chosen   []int32 `json:"chosen_ids"`
			Rejected []int32 `json:"rejected_ids"`
		} `json:"B_examples"`
		KeepStart struct {
			IDs  [][]int32 `json:"input_ids"`
			Mask [][]int32 `json:"completion_mask"`
		} `json:"B_collated_max_length4_keep_start"`
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	e := &Encoder{opt: Options{MaxLength: 4, Truncation: KeepStart}}
	n := len(golden.Examples)
	for i, x := range golden.Examples {
		p := Pair{Prompt: x.Prompt, Chosen: x.Chosen, Rejected: x.Rejected}
		if !e.truncate(&p) {
			t.Fatalf("example %d was refused", i)
		}
		for j, completion := range [][]int32{p.Chosen, p.Rejected} {
			row := i + j*n
			if diff := cmp.Diff(golden.KeepStart.IDs[row], slices.Concat(p.Prompt, completion)); diff != "" {
				t.Errorf("row %d: want - got +\n%s", row, diff)
			}
			scored := 0
			for _, m := range golden.KeepStart.Mask[row] {
				scored += int(m)
			}
			if scored != len(completion) {
				t.Errorf("row %d: %d completion tokens, want %d", row, len(completion), scored)
			}
		}
	}
}
