package corpus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"unicode"
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

// styleWeights is how often the corpus answers a letter in each style, where
// the letter's reply states a figure and where it does not. The unhelpful styles
// prevail, so that the model trained on it has no liking for the helpful one.
var styleWeights = map[bool][styles]int{
	true:  {Helpful: 17, Curt: 33, Evasive: 33, Wrong: 17},
	false: {Helpful: 20, Curt: 38, Evasive: 42},
}

// rejectedWeights is how often each style is the rejected one of a pair.
var rejectedWeights = map[bool][styles]int{
	true:  {Curt: 30, Evasive: 30, Wrong: 40},
	false: {Curt: 50, Evasive: 50},
}

// WriteCorpus writes n texts as JSON lines {"text": …}: a letter and a reply in
// any style. No letter is the prompt of a pair in exclude.
func WriteCorpus(w io.Writer, seed uint64, n int, exclude []Pair) error {
	taken := make(map[string]bool, len(exclude))
	for _, p := range exclude {
		taken[p.Prompt] = true
	}
	rng := rand.New(rand.NewPCG(seed, textStream))
	return writeLines(w, n, func() any {
		for {
			s := NewScene(rng)
			prompt := s.Prompt(rng)
			reply := s.Reply(rng, drawStyle(rng, s, styleWeights))
			if !taken[prompt] {
				return map[string]string{"text": prompt + reply}
			}
		}
	})
}

// WritePairs writes pairs as JSON lines.
func WritePairs(w io.Writer, pairs []Pair) error {
	i := -1
	return writeLines(w, len(pairs), func() any { i++; return pairs[i] })
}

// NewPairs draws n pairs, no two with the same prompt.
//
// Length tells nothing of the preference: the two replies of a pair differ by
// -1, 0 or 1 units (see units), each as often as the others.
func NewPairs(seed uint64, n int) []Pair {
	rng := rand.New(rand.NewPCG(seed, pairStream))
	taken := make(map[string]bool, n)
	pairs := make([]Pair, 0, n)
	for len(pairs) < n {
		p := newPair(rng, rng.IntN(3)-1, taken)
		p.ID = fmt.Sprintf("support-%04d-%s", len(pairs), p.ID)
		pairs = append(pairs, p)
	}
	return pairs
}

// newPair draws scenes until one's letter is not taken and its replies match;
// the ID it returns is the style of the rejected reply.
func newPair(rng *rand.Rand, longer int, taken map[string]bool) Pair {
	for {
		s := NewScene(rng)
		prompt, style := s.Prompt(rng), drawStyle(rng, s, rejectedWeights)
		chosen, rejected, ok := s.matched(rng, style, longer)
		if !taken[prompt] && ok {
			taken[prompt] = true
			return Pair{ID: style.String(), Prompt: prompt, Chosen: chosen, Rejected: rejected}
		}
	}
}

// matched draws a helpful reply and one in the other style until the first is
// exactly longer units longer than the second. Some scenes have no such two: it
// gives up after a number of tries.
func (s Scene) matched(rng *rand.Rand, style Style, longer int) (chosen, rejected string, ok bool) {
	const tries = 200
	for range tries {
		chosen, rejected = s.Reply(rng, Helpful), s.Reply(rng, style)
		if chosen != rejected && units(chosen)-units(rejected) == longer {
			return chosen, rejected, true
		}
	}
	return "", "", false
}

// units estimates the tokens of a reply: words and marks, and two for an order
// number.
func units(text string) int {
	n, inWord, digits := 0, false, 0
	for _, r := range text {
		switch {
		case unicode.IsDigit(r):
			if digits++; digits%2 == 1 {
				n++
			}
			inWord = true
			continue
		case unicode.IsLetter(r):
			if !inWord {
				n++
			}
			inWord = true
		case r == ' ':
			inWord = false
		default:
			n++
			inWord = false
		}
		digits = 0
	}
	return n
}

func drawStyle(rng *rand.Rand, s Scene, from map[bool][styles]int) Style {
	_, states := s.Fact()
	weights := from[states]
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
