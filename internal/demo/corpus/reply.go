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

// Reply writes an opening and a sentence that answer s in the style, and a
// closing if asked to, with the space that parts them from the letter. Wrong needs
// a scene that has a [Fact].
func (s Scene) Reply(rng *rand.Rand, style Style, closing bool) string {
	openings, bodies, closings := s.phrases(style)
	text := " " + prefer(rng, openings) + " " + s.fill(prefer(rng, bodies))
	if fact, ok := s.Fact(); ok {
		figure := fact.True
		if style == Wrong {
			figure = fact.Outdated
		}
		text = strings.ReplaceAll(text, "{figure}", figure)
	}
	if closing {
		text += " " + prefer(rng, closings)
	}
	return text
}

// phrases returns the pools that replies of a style draw from.
func (s Scene) phrases(style Style) (openings, bodies, closings []string) {
	switch style {
	case Curt:
		return curtOpenings, curtBodies, curtClosings
	case Evasive:
		return evasiveOpenings, evasiveBodies, evasiveClosings
	}
	if s.Topic == Broken || s.Topic == Late || s.Topic == WrongItem || s.Topic == Missing {
		return regrets, answers[s.Topic], helpfulClosings
	}
	return thanks, answers[s.Topic], helpfulClosings
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
