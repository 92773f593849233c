package demo_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/internal/demo/corpus"
)

// maxBytes is what model, tokenizer and data may weigh together.
const maxBytes = 5_000_000

var modelFiles = []string{
	"config.json", "generation_config.json", "model.onnx", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
}

func TestFilesAreCompleteAndSmall(t *testing.T) {
	t.Parallel()
	total, found := 0, map[string]bool{}
	err := fs.WalkDir(demo.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data := read(t, path)
		total += len(data)
		found[path] = true
		if filepath.Ext(path) == ".json" && !json.Valid(data) {
			t.Errorf("%s is not JSON", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{demo.DataFile: true}
	for _, name := range modelFiles {
		want[demo.ModelDir+"/"+name] = true
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("embedded files (-want +got):\n%s", diff)
	}
	if total > maxBytes {
		t.Errorf("embedded files weigh %d bytes, want at most %d", total, maxBytes)
	}
}

// TestGeneratorWritesWhatIsCommitted ties the committed files to the generator:
// the pairs byte for byte, and the model by the SHA-256 of the corpus that it
// was trained on, which is not kept.
func TestGeneratorWritesWhatIsCommitted(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join("testdata", "corpus.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	prompts, err := corpus.WriteCorpus(hash, corpus.Seed, corpus.Texts)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != strings.TrimSpace(string(want)) {
		t.Errorf("corpus has SHA-256 %s, want %s: the model was trained on other texts", got, want)
	}

	tok := loadTokenizer(t)
	count := func(text string) int { return count(t, tok, text) }
	pairs := corpus.NewPairs(corpus.Seed, corpus.Pairs, prompts, count)
	var b bytes.Buffer
	if err := corpus.WritePairs(&b, pairs); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), read(t, demo.DataFile)) {
		t.Error("preferences.jsonl is not what the generator writes; README.md says how to rebuild it")
	}
	for _, p := range pairs {
		prompts[p.Prompt] = true
	}
	for _, prompt := range demo.Prompts {
		if prompts[prompt] {
			t.Errorf("prompt %q is in the corpus or the preferences", prompt)
		}
	}
}

// TestPreferencesAreUsable reads the committed file as a stranger would.
func TestPreferencesAreUsable(t *testing.T) {
	t.Parallel()
	pairs := readPairs(t)
	if len(pairs) != corpus.Pairs {
		t.Fatalf("%d pairs, want %d", len(pairs), corpus.Pairs)
	}
	prompts, ids := map[string]bool{}, map[string]bool{}
	for _, p := range pairs {
		if prompts[p.Prompt] || ids[p.ID] {
			t.Errorf("pair %q: its prompt or its id is there twice", p.ID)
		}
		prompts[p.Prompt], ids[p.ID] = true, true
		if p.Prompt == "" || p.Chosen == "" || p.Rejected == "" || p.Chosen == p.Rejected {
			t.Errorf("pair %q can't be used: %+v", p.ID, p)
		}
	}
}

func TestWriteTo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "demo")
	for range 2 { // the second time replaces what the first wrote
		if err := demo.WriteTo(dir); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]bool{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		got[path] = true
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil && !bytes.Equal(data, read(t, path)) {
			t.Errorf("%s differs from the embedded file", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(modelFiles)+1 {
		t.Errorf("wrote %v, want %d files", got, len(modelFiles)+1)
	}
}

func TestWriteToAFileIsAnError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := demo.WriteTo(path); err == nil {
		t.Error("WriteTo onto a file gave no error")
	}
}

// TestLengthTellsNothingInTokens bounds what length alone can say: how often the
// chosen reply is the longer one, and how well a rule fitted on the lengths of
// four fifths of the pairs ranks the rest.
func TestLengthTellsNothingInTokens(t *testing.T) {
	t.Parallel()
	tok := loadTokenizer(t)
	pairs := readPairs(t)
	lengths := make([][2]int, len(pairs))
	longer, shorter := 0, 0
	for i, p := range pairs {
		lengths[i] = [2]int{count(t, tok, p.Chosen), count(t, tok, p.Rejected)}
		if lengths[i][0] > lengths[i][1] {
			longer++
		} else if lengths[i][0] < lengths[i][1] {
			shorter++
		}
	}
	if share := float64(longer) / float64(longer+shorter); share < 0.45 || share > 0.55 {
		t.Errorf("chosen is the longer one in %.3f of the pairs that differ, want 0.45 to 0.55", share)
	}
	if got := lengthRule(lengths); got > 0.55 {
		t.Errorf("a rule on lengths ranks %.3f of the held-out pairs, want at most 0.55", got)
	}
}

// lengthRule fits how much likelier each length is for a chosen reply than for
// a rejected one, on the first four fifths, and returns the share of the rest
// that it ranks right; ties count half.
func lengthRule(lengths [][2]int) float64 {
	fit := len(lengths) * 4 / 5
	counts := map[int]*[2]float64{}
	at := func(n int) *[2]float64 {
		if counts[n] == nil {
			counts[n] = &[2]float64{1, 1}
		}
		return counts[n]
	}
	for _, pair := range lengths[:fit] {
		at(pair[0])[0]++
		at(pair[1])[1]++
	}
	right := 0.0
	for _, pair := range lengths[fit:] {
		c, r := at(pair[0]), at(pair[1])
		switch d := c[0]/c[1] - r[0]/r[1]; {
		case d > 0:
			right++
		case d == 0:
			right += 0.5
		}
	}
	return right / float64(len(lengths)-fit)
}

func TestLengthRule(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		lengths [][2]int
		want    float64
	}{
		{"chosen always longer", repeat([2]int{9, 4}, 10), 1},
		{"always equal", repeat([2]int{5, 5}, 10), 0.5},
		{"rule turned round in the held-out part", append(repeat([2]int{9, 4}, 8), repeat([2]int{4, 9}, 2)...), 0},
	}
	for _, c := range cases {
		if got := lengthRule(c.lengths); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func repeat(pair [2]int, n int) [][2]int {
	var out [][2]int
	for range n {
		out = append(out, pair)
	}
	return out
}

// TestGoldenIds holds the ids that the training script wrote against this
// module's tokenizer, and the golden file against itself.
func TestGoldenIds(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "golden_logprobs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Prompt, Completion string
			Ids                []int32
			PromptTokens       int       `json:"prompt_tokens"`
			TokenLogps         []float64 `json:"token_logps"`
			Sum                float64
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	const eos = 0
	const rounding = 1e-4 // each log-prob is rounded to 1e-6, the sum to 1e-5
	tok := loadTokenizer(t)
	for _, c := range golden.Cases {
		ids, err := tok.Encode(c.Prompt + c.Completion)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.Ids, append(ids, eos)); diff != "" {
			t.Errorf("%q: ids (-golden +got):\n%s", c.Prompt+c.Completion, diff)
		}
		if len(c.TokenLogps) != len(c.Ids)-c.PromptTokens {
			t.Errorf("%q: %d log-probs for %d ids after %d", c.Completion, len(c.TokenLogps), len(c.Ids), c.PromptTokens)
		}
		sum := -c.Sum
		for _, p := range c.TokenLogps {
			sum += p
		}
		if sum > rounding || sum < -rounding {
			t.Errorf("%q: log-probs differ from their sum by %v", c.Completion, sum)
		}
	}
	if len(golden.Cases) == 0 {
		t.Error("golden file has no cases")
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(demo.FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readPairs(t *testing.T) []corpus.Pair {
	t.Helper()
	var pairs []corpus.Pair
	for dec := json.NewDecoder(bytes.NewReader(read(t, demo.DataFile))); dec.More(); {
		var p corpus.Pair
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
	}
	return pairs
}

func loadTokenizer(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Parse(read(t, demo.ModelDir+"/tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func count(t *testing.T, tok *tokenizer.Tokenizer, text string) int {
	t.Helper()
	ids, err := tok.Encode(text)
	if err != nil {
		t.Fatal(err)
	}
	return len(ids)
}
