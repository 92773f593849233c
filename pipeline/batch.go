package pipeline

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/models"
)

// sequence is a prompt with a completion, as the backbone runs it. A text that several
// pairs hold is one sequence.
type sequence struct {
	prompt int     // prompt tokens
	ids    []int32 // prompt and completion
	uses   []use
}

// use is one completion of a pair of the window.
type use struct {
	pair   int
	chosen bool
}

// run is what goes through the backbone: the last token predicts nothing.
func (s sequence) run() []int32 { return s.ids[:len(s.ids)-1] }

// completion is the number of tokens that are scored.
func (s sequence) completion() int { return len(s.ids) - s.prompt }

// sequences lists the completions of a window behind their prompts, each once.
func sequences(window []encode.Pair) []sequence {
	var seqs []sequence
	known := map[string]int{}
	add := func(prompt, completion []int32, u use) {
		ids := slices.Concat(prompt, completion)
		key := sequenceKey(len(prompt), ids)
		i, ok := known[key]
		if !ok {
			i = len(seqs)
			known[key] = i
			seqs = append(seqs, sequence{prompt: len(prompt), ids: ids})
		}
		seqs[i].uses = append(seqs[i].uses, u)
	}
	for i, p := range window {
		add(p.Prompt, p.Chosen, use{i, true})
		add(p.Prompt, p.Rejected, use{i, false})
	}
	return seqs
}

func sequenceKey(prompt int, ids []int32) string {
	key := binary.AppendUvarint(make([]byte, 0, 4*len(ids)+8), uint64(prompt))
	for _, id := range ids {
		key = binary.LittleEndian.AppendUint32(key, uint32(id))
	}
	return string(key)
}

// limits bound what is run and kept at once. They and the rows decide the batches, never
// timing: a pass that was killed makes the same numbers when it goes on.
type limits struct {
	continuation models.Continuation
	// tokens bounds the new tokens of a batch, padding included; cached its new and past ones.
	tokens, cached int
	// kept bounds the tokens whose keys and values wait for what follows them.
	kept int
	// worth is how many tokens a shared run must save.
	worth int
}

// paddingPart bounds the padding of a row: this part of the longest.
const paddingPart = 8

// batch is one run of the backbone.
type batch struct {
	nodes []*node
	width int // tokens of the longest
}

// planner lists the batches of a prefix tree so that what precedes a run comes before it.
type planner struct {
	limits
	batches []batch
}

// plan lists the batches that run every sequence.
func plan(seqs []sequence, l limits) []batch {
	p := &planner{limits: l}
	p.grow(prefixTree(seqs, l.worth), l.kept)
	return p.batches
}

// grow runs nodes whose past is there, and all that follows them, while no more than kept
// tokens are kept. A level takes half of that and leaves the rest to those behind it.
func (p *planner) grow(nodes []*node, kept int) {
	nodes = affordable(nodes, kept/2)
	slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(b.len(), a.len()) })
	for len(nodes) > 0 {
		n, held := 0, 0
		var children []*node
		for n < len(nodes) && held+nodes[n].kept() <= kept/2 {
			held += nodes[n].kept()
			children = append(children, nodes[n].children...)
			n++
		}
		p.cut(slices.Clone(nodes[:n]))
		if len(children) > 0 {
			p.grow(children, kept-held)
		}
		nodes = nodes[n:]
	}
}

// cut makes batches of nodes with as many and as new tokens as there may be.
func (p *planner) cut(nodes []*node) {
	slices.SortStableFunc(nodes, func(a, b *node) int {
		return cmp.Or(cmp.Compare(p.kin(b), p.kin(a)), cmp.Compare(b.len(), a.len()), cmp.Compare(b.start, a.start))
	})
	for len(nodes) > 0 {
		n := 1
		for n < len(nodes) && p.together(nodes[:n], nodes[n]) {
			n++
		}
		p.batches = append(p.batches, batch{nodes: nodes[:n], width: nodes[0].len()})
		nodes = nodes[n:]
	}
}

// kin is what the pasts of a batch have in common: their length or, where that may differ, its
// magnitude, as shorter ones are padded.
func (p *planner) kin(n *node) int {
	if p.continuation == models.AnyPast {
		return bits.Len(uint(n.start))
	}
	return n.start
}

// together reports whether a node may join a batch, whose first is the longest.
func (p *planner) together(b []*node, n *node) bool {
	rows, width, past := len(b)+1, b[0].len(), n.start
	for _, other := range b {
		past = max(past, other.start)
	}
	return p.kin(n) == p.kin(b[0]) && (p.continuation > models.OneByOne || n.start == 0) &&
		rows*width <= p.tokens && rows*(past+width) <= p.cached && n.len()*paddingPart >= width*(paddingPart-1)
}

// Work is how many tokens went through the backbone.
type Work struct {
	// Tokens were run, PaddedTokens with the padding of batches. SequenceTokens are those of all
	// prompts with each of their completions: what a pass without sharing runs.
	Tokens         int64 `json:"tokens"`
	PaddedTokens   int64 `json:"padded_tokens"`
	SequenceTokens int64 `json:"sequence_tokens"`
}

// Padding is the share of padding in what was run.
func (w Work) Padding() float64 { return 1 - float64(w.Tokens)/float64(max(w.PaddedTokens, 1)) }

// Shared is the share of the sequences' tokens that sharing saved.
func (w Work) Shared() float64 { return 1 - float64(w.Tokens)/float64(max(w.SequenceTokens, 1)) }

func (w *Work) add(b batch) {
	for _, n := range b.nodes {
		w.Tokens += int64(n.len())
	}
	w.PaddedTokens += int64(len(b.nodes) * b.width)
}

func (w *Work) addSequence(s sequence) {
	w.SequenceTokens += int64(len(s.uses) * len(s.run()))
}
