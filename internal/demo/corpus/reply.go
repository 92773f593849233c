package corpus

import (
	"math/rand/v2"
	"strings"
)

// A Style is the manner of a reply.
type Style int

// The styles of replies; see the package comment.
const (
	Helpful Style = iota
	Curt
	Evasive
	Wrong
	styles
)

// String returns the style's name in lower case.
func (st Style) String() string { return [styles]string{"helpful", "curt", "evasive", "wrong"}[st] }

// Reply writes two or three sentences that answer s in the style, with the
// space that parts them from the letter. Wrong needs a scene that has a [Fact].
func (s Scene) Reply(rng *rand.Rand, style Style) string {
	switch style {
	case Curt:
		return s.remarks(rng, curtOpenings, curtRemarks)
	case Evasive:
		return s.remarks(rng, evasiveOpenings, evasiveRemarks)
	}
	return s.answer(rng, style)
}

// answer writes a polite reply: an opening, the answer, and sometimes a closing.
func (s Scene) answer(rng *rand.Rand, style Style) string {
	text := " " + s.opening(rng) + " " + s.fill(prefer(rng, answers[s.Topic]))
	if fact, ok := s.Fact(); ok {
		figure := fact.True
		if style == Wrong {
			figure = fact.Outdated
		}
		text = strings.ReplaceAll(text, "{figure}", figure)
	}
	if rng.IntN(2) == 0 {
		text += " " + prefer(rng, closings)
	}
	return text
}

func (s Scene) opening(rng *rand.Rand) string {
	from := regrets
	switch s.Topic {
	case Return, Warranty, Refund, Cancel, Address:
		from = thanks
	}
	text := prefer(rng, from)
	if s.Name != "" && rng.IntN(3) > 0 {
		text += ", " + s.Name
	}
	return text + "."
}

// remarks writes an opening and one or two different remarks.
func (s Scene) remarks(rng *rand.Rand, openings, remarks []string) string {
	text := " " + s.fill(prefer(rng, openings))
	first := prefer(rng, remarks)
	text += " " + s.fill(first)
	if rng.IntN(2) == 0 {
		second := prefer(rng, remarks)
		for second == first {
			second = prefer(rng, remarks)
		}
		text += " " + s.fill(second)
	}
	return text
}

// prefer draws from a pool of phrases, the first most often: the i-th has a
// share of 1/(i+1), as words in a language have, in whole numbers.
func prefer(rng *rand.Rand, pool []string) string {
	const unit = 27720 // divisible by 1 to 12
	total := 0
	for i := range pool {
		total += unit / (i + 1)
	}
	at := rng.IntN(total)
	for i, phrase := range pool {
		if at -= unit / (i + 1); at < 0 {
			return phrase
		}
	}
	panic("corpus: shares do not add up")
}
