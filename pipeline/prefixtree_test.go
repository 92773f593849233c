package pipeline

import (
	"context"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// drawWindow draws pairs over three tokens, so that they begin alike in many ways.
func drawWindow(t *rapid.T) []encode.Pair {
	text := func(name string) []int32 { return rapid.SliceOfN(rapid.Int32Range(0, 2), 1, 6).Draw(t, name) }
	system := text("system")
	window := make([]encode.Pair, rapid.IntRange(1, 8).Draw(t, "pairs"))
	for i := range window {
		prompt := text("prompt")
		if rapid.Bool().Draw(t, "with system") {
			prompt = slices.Concat(system, prompt)
		}
		window[i] = encode.Pair{Prompt: prompt, Chosen: text("chosen"), Rejected: text("rejected")}
	}
	return window
}

// distinctPrefixes counts the texts that a token is the last of: what has to be run.
func distinctPrefixes(seqs []sequence) int {
	known := map[string]bool{}
	for _, s := range seqs {
		for n := range s.run() {
			known[sequenceKey(0, s.ids[:n+1])] = true
		}
	}
	return len(known)
}

// heldAtMost runs a plan on paper and returns the most tokens that are kept at once.
func heldAtMost(t *rapid.T, batches []batch) (most int) {
	waiting, held := map[*node]int{}, 0
	var free func(n *node)
	free = func(n *node) {
		held -= n.kept()
		if p := n.parent; p != nil {
			if waiting[p]--; waiting[p] == 0 {
				free(p)
			}
		}
	}
	for _, b := range batches {
		for _, n := range b.nodes {
			if n.parent != nil {
				waiting[n.parent]++
			}
		}
	}
	for _, b := range batches {
		for _, n := range b.nodes {
			held += n.kept()
		}
		most = max(most, held)
		for _, n := range b.nodes {
			if len(n.children) == 0 {
				free(n)
			}
		}
	}
	if held != 0 {
		t.Fatalf("%d tokens are kept for nothing", held)
	}
	return most
}

// Whatever is shared and however it is batched, the states are those of whole texts, and
// with all the memory there is every distinct token is run once.
func TestSharingNeverMovesAState(t *testing.T) {
	opt := onnxtest.Default()
	opt.V, opt.D, opt.FF, opt.Layers, opt.Heads, opt.KVHeads = 3, 8, 8, 2, 2, 1
	decoder := onnxtest.New(opt)
	rapid.Check(t, func(t *rapid.T) {
		window := drawWindow(t)
		seqs := sequences(window)
		l := limits{
			continuation: rapid.SampledFrom([]models.Continuation{models.NoContinuation, models.OneByOne, models.EqualPast, models.AnyPast}).Draw(t, "continuation"),
			tokens:       rapid.IntRange(1, 60).Draw(t, "batch tokens"),
			cached:       rapid.SampledFrom([]int{1, 10, 30, math.MaxInt}).Draw(t, "cached"),
			kept:         rapid.SampledFrom([]int{0, 3, 10, 40, math.MaxInt}).Draw(t, "kept"),
			worth:        rapid.SampledFrom([]int{0, 2, 5}).Draw(t, "worth"),
		}
		if l.continuation == models.NoContinuation {
			l.worth = math.MaxInt
		}
		rt := newFakeRuntime(decoder)
		rt.traits.Continuation, rt.traits.Lanes = l.continuation, rapid.IntRange(1, 3).Draw(t, "lanes")
		ref := transformer{fakeBackbone{rt}, opt.D, spareCaches(1 << 20)}
		batches := plan(seqs, l)
		if held := heldAtMost(t, batches); held > l.kept {
			t.Fatalf("%d tokens are kept, want at most %d", held, l.kept)
		}
		features := make([][]float32, len(seqs))
		ended := make([]int, len(seqs))
		var work Work
		err := ref.forward(context.Background(), seqs, batches, features, func(b batch, complete []int) error {
			work.add(b)
			if len(b.nodes) > 1 && len(b.nodes)*b.width > l.tokens {
				t.Errorf("a batch of %d runs has %d tokens, want at most %d", len(b.nodes), len(b.nodes)*b.width, l.tokens)
			}
			for _, i := range complete {
				ended[i]++
				checkStates(t, decoder, seqs[i], features[i])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range ended {
			if n != 1 {
				t.Errorf("sequence %d is complete %d times", i, n)
			}
		}
		if int(work.Tokens) != rt.tokens {
			t.Errorf("%d tokens were planned, %d run", work.Tokens, rt.tokens)
		}
		if l.continuation > models.NoContinuation && l.worth == 0 && l.kept == math.MaxInt {
			if want := distinctPrefixes(seqs); rt.tokens != want {
				t.Errorf("%d tokens were run, want the %d distinct ones", rt.tokens, want)
			}
		}
	})
}

func checkStates(t rapid.TB, d *onnxtest.Decoder, s sequence, got []float32) {
	var want []float32
	for _, h := range d.Hidden(s.run())[s.prompt-1:] {
		for _, x := range h {
			want = append(want, float32(x))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the states of %v behind %d are %v, want %v", s.ids, s.prompt, got, want)
	}
}

// Three pairs on two prompts behind one system prompt, worked by hand. The last token of a sequence is not run.
//
//	1 2 ┬ 3 4 ┬ 5    (prompt 1234, chosen 5 6)
//	    │     └ 6    (rejected 6 7), 7 (another chosen 7 7)
//	    └ 8 ─── 9    (prompt 128, chosen 9 9, rejected 9)
func TestPrefixTreeByHand(t *testing.T) {
	seqs := sequences([]encode.Pair{
		{Prompt: []int32{1, 2, 3, 4}, Chosen: []int32{5, 6}, Rejected: []int32{6, 7}},
		{Prompt: []int32{1, 2, 3, 4}, Chosen: []int32{7, 7}, Rejected: []int32{6, 7}},
		{Prompt: []int32{1, 2, 8}, Chosen: []int32{9, 9}, Rejected: []int32{9}},
	})
	if len(seqs) != 5 || len(seqs[1].uses) != 2 {
		t.Fatalf("there are %d sequences, the second for %d completions; want 5 and 2", len(seqs), len(seqs[1].uses))
	}
	for _, c := range []struct{ worth, tokens int }{
		{0, 9},  // 1 2, 3 4, 5, 6, 7, 8, 9
		{3, 10}, // 8 for two saves 1, so there are 8 9 and 8
		{5, 14}, // 3 4 for three saves 4, so there are 3 4 5, 3 4 6, 3 4 7; 1 2 then saves 8
		{9, 22}, // nothing is worth it: 5 + 5 + 5 + 4 + 3
	} {
		var w Work
		for _, b := range plan(seqs, limits{continuation: models.AnyPast, tokens: 100, cached: 100, kept: 100, worth: c.worth}) {
			w.add(b)
		}
		if int(w.Tokens) != c.tokens {
			t.Errorf("worth %d runs %d tokens, want %d", c.worth, w.Tokens, c.tokens)
		}
	}
}
