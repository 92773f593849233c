package pipeline

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// world is a model folder, data and a runtime that computes what the model's
// ONNX file would, in plain Go and float64.
type world struct {
	t       testing.TB
	dir     string
	decoder *onnxtest.Decoder
	rt      *fakeRuntime
}

// worldVocabulary is one token a byte and the end token.
const worldVocabulary = 257

func newWorld(t testing.TB) *world {
	t.Helper()
	opt := onnxtest.Default()
	opt.V = worldVocabulary
	w := &world{t: t, dir: t.TempDir(), decoder: onnxtest.New(opt)}
	w.rt = newFakeRuntime(w.decoder)
	must(t, os.Mkdir(w.path("model"), 0o777))
	must(t, w.decoder.WriteDir(w.path("model")))
	w.write("model/tokenizer.json", byteTokenizer(t))
	w.write("model/tokenizer_config.json", `{"eos_token": "<end>"}`)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) {
	w.t.Helper()
	must(w.t, os.WriteFile(w.path(name), []byte(content), 0o666))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// byteTokenizer is a byte-level BPE without merges: ids are the positions of the
// bytes in GPT-2's byte alphabet, and 256 is <end>.
func byteTokenizer(t testing.TB) string {
	vocab := map[string]int{}
	next := 256
	for b := range 256 {
		r := rune(b)
		if b < '!' || b > '~' && b < 0xa1 || b == 0xad {
			r = rune(next)
			next++
		}
		vocab[string(r)] = b
	}
	doc := map[string]any{
		"added_tokens": []any{map[string]any{
			"id": 256, "content": "<end>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		}},
		"normalizer":     nil,
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
		"model":          map[string]any{"type": "BPE", "vocab": vocab, "merges": []any{}},
	}
	text, err := json.Marshal(doc)
	must(t, err)
	return string(text)
}

// pairs writes n preferences on n/2 prompts; chosen completions repeat a letter
// that rejected ones lack, so that there is something to learn.
func (w *world) pairs(name string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"prompt": "q%d:", "chosen": " %s%d", "rejected": " %s%d"}`+"\n",
			i/2, strings.Repeat("a", 1+i%4), i, strings.Repeat("z", 1+(i/3)%5), i)
	}
	w.write(name, b.String())
	return w.path(name)
}

func (w *world) precomputeConfig(data string) PrecomputeConfig {
	cfg := DefaultPrecomputeConfig()
	cfg.Model, cfg.Data, cfg.Out = w.path("model"), []string{data}, w.path("cache")
	cfg.PartPairs, cfg.BatchTokens = 5, 40
	return cfg
}

// cache runs the reference over n pairs.
func (w *world) cache(n int) string {
	w.t.Helper()
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", n))
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(w.t, err)
	return cfg.Out
}

func (w *world) trainConfig(cache string) TrainConfig {
	cfg := DefaultTrainConfig()
	cfg.Cache, cfg.Out, cfg.Engine = cache, w.path("run"), "gonum"
	cfg.Rank, cfg.Alpha, cfg.BatchPairs, cfg.Epochs, cfg.LR = 4, 8, 4, 2, 0.01
	cfg.EvalFrac, cfg.LogEvery, cfg.SaveEvery = 0.25, 2, 3
	return cfg
}

// gonumEngine opens heads without a C library, and no model.
var gonumEngine = Engines{Head: func(_ string, v *models.Vocabulary) (models.Engine, error) { return models.NewGonum(v), nil }}

// fakeRuntime computes hidden states with the decoder's own forward pass and
// heads with gonum. calls counts runs of the backbone; before each, stop is asked.
type fakeRuntime struct {
	decoder *onnxtest.Decoder
	traits  models.Traits
	mu      sync.Mutex
	calls   int
	// tokens counts those that were run.
	tokens int
	stop   func(call int) error
	// scale, unless 0, multiplies every hidden state.
	scale float32
	// wrong is added to every log-prob of a whole model.
	wrong float64
	// says is what whole models generate.
	says string
	// prompts are what they were asked to continue.
	prompts [][]int32
}

var _ Runtime = (*fakeRuntime)(nil)

func (f *fakeRuntime) Identity() map[string]string { return map[string]string{"provider": "fake"} }

func (f *fakeRuntime) OpenBackbone(*onnx.Model, *onnx.IO) (Backbone, error) {
	return fakeBackbone{f}, nil
}

func (f *fakeRuntime) OpenEngine(v *models.Vocabulary) (models.Engine, error) {
	return models.NewGonum(v), nil
}

// OpenLanguageModel reads the head from the file and puts it behind the decoder's hidden
// states: the backbone of an exported model is that of its base.
func (f *fakeRuntime) OpenLanguageModel(path string) (LanguageModel, error) {
	split, err := openSplit(path, "")
	if err != nil {
		return nil, err
	}
	return &fakeModel{f, models.NewGonum(split.vocabulary)}, split.model.Close()
}

// newFakeRuntime counts four bytes for a token's cache: its id.
func newFakeRuntime(d *onnxtest.Decoder) *fakeRuntime {
	return &fakeRuntime{decoder: d, traits: models.Traits{Continuation: models.AnyPast, CacheBytes: 4, Lanes: 1}}
}

type fakeBackbone struct{ *fakeRuntime }

func (b fakeBackbone) Traits() models.Traits { return b.traits }

// Run knows the past by the ids that the caches hold, and refuses what the traits do.
func (b fakeBackbone) Run(ctx context.Context, batch []*models.Run) error {
	b.mu.Lock()
	b.calls++
	call := b.calls
	b.mu.Unlock()
	if b.stop != nil {
		if err := b.stop(call); err != nil {
			return err
		}
	}
	for _, r := range batch {
		past, most := r.PastTokens(), batch[0].PastTokens()
		switch c := b.traits.Continuation; {
		case past > 0 && c == models.NoContinuation, past > 0 && c == models.OneByOne && len(batch) > 1,
			past != most && c == models.EqualPast, len(r.IDs) == 0:
			return fmt.Errorf("a run of %d tokens after %d in a batch of %d: can do %s", len(r.IDs), past, len(batch), c)
		}
		var ids []int32
		for _, c := range r.Past {
			ids = append(ids, idsOf(c)...)
		}
		ids = append(ids, r.IDs...)
		r.Hidden = r.Hidden[:0]
		if r.From < len(r.IDs) {
			for _, h := range b.decoder.Hidden(ids)[past+r.From:] {
				for _, x := range h {
					r.Hidden = append(r.Hidden, b.scaled(x))
				}
			}
		}
		if r.Keep {
			r.Cache = cacheOf(r.Cache, r.IDs)
		}
		b.mu.Lock()
		b.tokens += len(r.IDs)
		b.mu.Unlock()
	}
	return ctx.Err()
}

func (f *fakeRuntime) scaled(x float64) float32 {
	if f.scale == 0 {
		return float32(x)
	}
	return f.scale * float32(x)
}

// cacheOf writes over a cache where it is given one, so that one that is still in use shows.
func cacheOf(c *models.Cache, ids []int32) *models.Cache {
	if c == nil {
		c = &models.Cache{Data: make([][]byte, 1)}
	}
	data := c.Data[0][:0]
	for _, id := range ids {
		data = binary.LittleEndian.AppendUint32(data, uint32(id))
	}
	c.Tokens, c.Data[0] = len(ids), data
	return c
}

func idsOf(c *models.Cache) (ids []int32) {
	for i := range c.Tokens {
		ids = append(ids, int32(binary.LittleEndian.Uint32(c.Data[0][4*i:])))
	}
	return ids
}

func (fakeBackbone) Close() error { return nil }

type fakeModel struct {
	*fakeRuntime
	engine models.Engine
}

func (m *fakeModel) Logps(ctx context.Context, seq []int32, from int) ([]float64, error) {
	run := &models.Run{IDs: seq[:len(seq)-1], From: from - 1}
	if err := (fakeBackbone{m.fakeRuntime}).Run(ctx, []*models.Run{run}); err != nil {
		return nil, err
	}
	var out models.Tokens
	rows := models.Rows{N: len(seq) - from, Hidden: run.Hidden, Targets: seq[from:]}
	if err := models.Forward(ctx, m.engine, rows, models.Addition{}, &out); err != nil {
		return nil, err
	}
	for i := range out.Logps {
		out.Logps[i] += m.wrong
	}
	return out.Logps, nil
}

// Generate offers, token by token, logits that are highest for what the runtime was
// told to say, and then for the end token.
func (m *fakeModel) Generate(_ context.Context, prompt []int32, g Generation) (out []int32, err error) {
	m.prompts = append(m.prompts, prompt)
	for i := range g.Limit {
		logits := make([]float32, worldVocabulary)
		next := int32(worldVocabulary - 1)
		if i < len(m.says) {
			next = int32(m.says[i])
		}
		logits[next] = 100
		out = append(out, g.Choose(logits))
		if slices.Contains(g.Stop, out[i]) {
			break
		}
	}
	return out, nil
}

func (m *fakeModel) Close() error { return m.engine.Close() }

// tree reads every file below dir; links are followed.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	}))
	return files
}

// sameTree compares the bytes of two folders.
func sameTree(t testing.TB, got, want map[string]string) {
	t.Helper()
	for name, content := range want {
		if have, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if have != content {
			t.Errorf("%s differs: %d bytes, want %d", name, len(have), len(content))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is there, and should not", name)
		}
	}
}
