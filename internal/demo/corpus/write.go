package corpus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
)

// Sizes and seed of the committed demo.
const (
	Seed  = 20240521
	Texts = 60000 // letters with a reply, to train the model on
	Pairs = 1600  // preference pairs
)

// Streams of random numbers, one for each purpose, so that a change of one
// output leaves the other as it was.
const (
	textStream = 1
	pairStream = 2
)

// A Pair is two replies to one letter: the chosen is always Helpful.
type Pair struct {
	ID       string `json:"id"` // number and the style of the rejected reply
	Prompt   string `json:"prompt"`
	Chosen   string `json:"chosen"`
	Rejected string `json:"rejected"`
}

// styleWeights is how often the corpus answers a letter in each style, in
// percent. The unhelpful styles prevail, curt ones in some topics and evasive ones
// in others, so that the model trained on it has no liking for the helpful one.
func styleWeights(t Topic) [styles]int {
	switch t {
	case Return:
		return [styles]int{Helpful: 17, Wrong: 17, Curt: 40, Evasive: 26}
	case Warranty, Refund:
		return [styles]int{Helpful: 17, Wrong: 17, Curt: 26, Evasive: 40}
	case Late, Address:
		return [styles]int{Helpful: 22, Curt: 31, Evasive: 47}
	}
	return [styles]int{Helpful: 22, Curt: 47, Evasive: 31}
}

// rejectedWeights is how often each style is the rejected one of a pair, in
// percent.
func rejectedWeights(t Topic) [styles]int {
	switch t {
	case Return, Warranty, Refund:
		return [styles]int{Wrong: 40, Curt: 30, Evasive: 30}
	}
	return [styles]int{Curt: 50, Evasive: 50}
}

// WriteCorpus writes n texts as JSON lines {"text": …}: a letter and a reply in
// any style, half of them with a closing. It returns the letters.
func WriteCorpus(w io.Writer, seed uint64, n int) (prompts map[string]bool, err error) {
	rng := rand.New(rand.NewPCG(seed, textStream))
	prompts = make(map[string]bool, n)
	err = writeLines(w, n, func() any {
		s := NewScene(rng)
		prompt := s.Prompt(rng)
		prompts[prompt] = true
		style := drawStyle(rng, styleWeights(s.Topic))
		return map[string]string{"text": prompt + s.Reply(rng, style, rng.IntN(2) == 0)}
	})
	return prompts, err
}

// WritePairs writes pairs as JSON lines.
func WritePairs(w io.Writer, pairs []Pair) error {
	i := -1
	return writeLines(w, len(pairs), func() any { i++; return pairs[i] })
}

// NewPairs draws n pairs, no two with the same prompt and none with a prompt of
// taken, which may be nil.
//
// Length tells nothing of the preference: the two replies of a pair have the same
// number of sentences, and differ by -1, 0 or 1 in what tokens counts, each as
// often as the others.
func NewPairs(seed uint64, n int, taken map[string]bool, tokens func(string) int) []Pair {
	rng := rand.New(rand.NewPCG(seed, pairStream))
	prompts := make(map[string]bool, n)
	pairs := make([]Pair, 0, n)
	for len(pairs) < n {
		p, ok := newPair(rng, len(pairs)%3-1, tokens)
		if !ok || prompts[p.Prompt] || taken[p.Prompt] {
			continue
		}
		prompts[p.Prompt] = true
		p.ID = fmt.Sprintf("support-%04d-%s", len(pairs), p.ID)
		pairs = append(pairs, p)
	}
	return pairs
}

// newPair draws a scene and two replies to it of which the chosen has longer
// tokens more than the other. Some scenes have no such two: it gives up after a
// number of tries, and not ok. The ID it returns is the style of the rejected reply.
func newPair(rng *rand.Rand, longer int, tokens func(string) int) (p Pair, ok bool) {
	const tries = 200
	s := NewScene(rng)
	style, closing := drawStyle(rng, rejectedWeights(s.Topic)), rng.IntN(2) == 0
	p = Pair{ID: style.String(), Prompt: s.Prompt(rng)}
	for range tries {
		p.Chosen, p.Rejected = s.Reply(rng, Helpful, closing), s.Reply(rng, style, closing)
		if tokens(p.Chosen)-tokens(p.Rejected) == longer {
			return p, true
		}
	}
	return Pair{}, false
}

func drawStyle(rng *rand.Rand, weights [styles]int) Style {
	total := 0
	for _, w := range weights {
		total += w
	}
	at := rng.IntN(total)
	for st, w := range weights {
		if at -= w; at < 0 {
			return Style(st)
		}
	}
	panic("corpus: style weights do not add up")
}

// writeLines writes n values of next as JSON lines, with no HTML escapes.
func writeLines(w io.Writer, n int, next func() any) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for range n {
		if err := enc.Encode(next()); err != nil {
			return err
		}
	}
	return buf.Flush()
}
