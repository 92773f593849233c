package pipeline

import (
	"cmp"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
)

// sequence is a prompt with one of its completions, as the backbone runs it.
type sequence struct {
	pair   int // index in the window
	chosen bool
	prompt int     // prompt tokens
	ids    []int32 // prompt and completion
}

// completion is the number of tokens that are scored.
func (s sequence) completion() int { return len(s.ids) - s.prompt }

// sequences lists both completions of each pair of a window.
func sequences(window []encode.Pair) []sequence {
	seqs := make([]sequence, 0, 2*len(window))
	for i, p := range window {
		seqs = append(seqs,
			sequence{pair: i, chosen: true, prompt: len(p.Prompt), ids: slices.Concat(p.Prompt, p.Chosen)},
			sequence{pair: i, prompt: len(p.Prompt), ids: slices.Concat(p.Prompt, p.Rejected)})
	}
	return seqs
}

// planBatches groups sequences of similar length so that no batch, padded to its longest,
// holds more than budget tokens; a sequence longer than the budget is a batch
// of its own. The plan depends on the sequences alone, never on timing.
func planBatches(seqs []sequence, budget int) [][]sequence {
	sorted := slices.Clone(seqs)
	slices.SortStableFunc(sorted, func(a, b sequence) int { return cmp.Compare(len(b.ids), len(a.ids)) })
	var batches [][]sequence
	for len(sorted) > 0 {
		n := max(1, min(len(sorted), budget/len(sorted[0].ids)))
		batches = append(batches, sorted[:n])
		sorted = sorted[n:]
	}
	return batches
}

// paddedTokens is what a plan costs the backbone, padding included.
func paddedTokens(batches [][]sequence) (n int64) {
	for _, b := range batches {
		n += int64(len(b)) * int64(len(b[0].ids))
	}
	return n
}
