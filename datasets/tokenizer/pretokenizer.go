package tokenizer

import (
	"encoding/json"
	"unicode"
	"unicode/utf8"
)

// A pretokenizer cuts a span into pieces, each of which the model takes on its
// own, and appends them to dst.
type pretokenizer interface {
	split(dst []span, s span, sc *scratch) ([]span, error)
}

const pretokenizers = "ByteLevel, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit or Sequence"

func parsePretokenizers(raw json.RawMessage) ([]pretokenizer, error) {
	return parseParts("pre_tokenizer", "pretokenizers", raw, parsePretokenizer)
}

func parsePretokenizer(part, kind string, raw json.RawMessage) (pretokenizer, error) {
	switch kind {
	case "ByteLevel":
		return parseByteLevel(part, raw)
	case "Split":
		return parseSplit(part, raw)
	case "Digits":
		return parseDigits(part, raw)
	case "Punctuation":
		return parsePunctuation(part, raw)
	case "Metaspace":
		return parseMetaspace(part, raw)
	case "Whitespace":
		return splitter{words{}, removed, true}, nil
	case "WhitespaceSplit":
		return splitter{class(unicode.IsSpace), removed, false}, nil
	}
	return nil, &UnsupportedError{part, kind, pretokenizers}
}

// pretokenize runs all steps over s and returns the pieces, which belong to sc.
func pretokenize(s span, steps []pretokenizer, sc *scratch) ([]span, error) {
	sc.pieces = append(sc.pieces[:0], s)
	for _, step := range steps {
		out := sc.spare[:0]
		for _, piece := range sc.pieces {
			var err error
			if out, err = step.split(out, piece, sc); err != nil {
				return nil, err
			}
		}
		sc.pieces, sc.spare = out, sc.pieces
	}
	return sc.pieces, nil
}

// A splitter splits by a pattern.
type splitter struct {
	pattern  pattern
	behavior behavior
	invert   bool // what lies between matches counts as the matches
}

func parseSplit(part string, raw json.RawMessage) (pretokenizer, error) {
	var c struct {
		Pattern  json.RawMessage
		Behavior string
		Invert   bool
	}
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	b, err := parseBehavior(part, c.Behavior)
	if err != nil {
		return nil, err
	}
	p, err := parsePattern(part, c.Pattern)
	return splitter{p, b, c.Invert}, err
}

func parseDigits(part string, raw json.RawMessage) (pretokenizer, error) {
	var c struct {
		Individual bool `json:"individual_digits"`
	}
	err := decode(part, raw, &c)
	if c.Individual {
		return splitter{class(unicode.IsNumber), isolated, false}, err
	}
	return splitter{class(unicode.IsNumber), contiguous, false}, err
}

func parsePunctuation(part string, raw json.RawMessage) (pretokenizer, error) {
	var c struct{ Behavior *string }
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	b, err := parseBehavior(part, valueOr(c.Behavior, "Isolated"))
	return splitter{class(isPunct), b, false}, err
}

func (p splitter) split(dst []span, s span, sc *scratch) ([]span, error) {
	cuts, err := p.pattern.cuts(sc.cuts[:0], s.text)
	if err != nil {
		return nil, err
	}
	sc.cuts = cuts
	if p.invert {
		for i := range cuts {
			cuts[i].match = !cuts[i].match
		}
	}
	for _, c := range p.behavior(cuts) {
		if c.start < c.end {
			dst = append(dst, s.slice(c.start, c.end))
		}
	}
	return dst, nil
}

// words is the pattern \w+|[^\w\s]+ of Whitespace.
type words struct{}

func (words) cuts(dst []cut, text string) ([]cut, error) {
	var before rune // kind of the stretch that is growing
	for i, r := range text {
		k := rune('.')
		if isWord(r) {
			k = 'w'
		} else if unicode.IsSpace(r) {
			k = ' '
		}
		end := i + utf8.RuneLen(r)
		if k == before {
			dst[len(dst)-1].end = end
		} else {
			dst = append(dst, cut{i, end, k != ' '})
		}
		before = k
	}
	return dst, nil
}

// byteLevel writes text in the byte alphabet, after splitting it with the
// expression of GPT-2.
type byteLevel struct {
	prefixSpace bool
	regex       bool
	raw         bool // leave the bytes as they are: the model takes them so
}

var gpt2Splitter = splitter{scanner(scanGPT2), isolated, false}

func parseByteLevel(part string, raw json.RawMessage) (pretokenizer, error) {
	var c struct {
		PrefixSpace *bool `json:"add_prefix_space"`
		UseRegex    *bool `json:"use_regex"`
	}
	err := decode(part, raw, &c)
	return &byteLevel{prefixSpace: valueOr(c.PrefixSpace, true), regex: valueOr(c.UseRegex, true)}, err
}

func (b *byteLevel) split(dst []span, s span, sc *scratch) ([]span, error) {
	if b.prefixSpace && s.text[0] != ' ' {
		s = prepend(s, " ")
	}
	n := len(dst)
	if b.regex {
		var err error
		if dst, err = gpt2Splitter.split(dst, s, sc); err != nil {
			return nil, err
		}
	} else {
		dst = append(dst, s)
	}
	if !b.raw {
		for i := n; i < len(dst); i++ {
			dst[i] = mapBytes(dst[i])
		}
	}
	return dst, nil
}

// metaspace writes spaces as another character, ▁ as a rule, and puts one in
// front.
type metaspace struct {
	mark   string
	scheme string // always, first or never: where to put one in front
	pieces bool   // split before every mark
}

func parseMetaspace(part string, raw json.RawMessage) (*metaspace, error) {
	var c struct {
		Replacement string
		Scheme      *string `json:"prepend_scheme"`
		PrefixSpace *bool   `json:"add_prefix_space"`
		Split       *bool
	}
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	scheme := valueOr(c.Scheme, "always")
	if c.PrefixSpace != nil && !*c.PrefixSpace {
		if c.Scheme != nil && scheme != "never" {
			return nil, malformed(part, "prepend_scheme is %q but add_prefix_space is false", scheme)
		}
		scheme = "never"
	}
	if scheme != "always" && scheme != "first" && scheme != "never" {
		return nil, &UnsupportedError{part + ".prepend_scheme", scheme, "always, first or never"}
	}
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return nil, malformed(part, "Metaspace has replacement %q, want one character", c.Replacement)
	}
	return &metaspace{c.Replacement, scheme, valueOr(c.Split, true)}, nil
}

func (m *metaspace) split(dst []span, s span, sc *scratch) ([]span, error) {
	first := m.scheme == "always" || m.scheme == "first" && s.start() == 0
	s, err := (&replacement{literal(" "), m.mark}).normalize(s)
	if err != nil {
		return nil, err
	}
	if first && len(s.text) > 0 && s.text[:min(len(m.mark), len(s.text))] != m.mark {
		s = prepend(s, m.mark)
	}
	if !m.pieces {
		return append(dst, s), nil
	}
	return splitter{literal(m.mark), mergedWithNext, false}.split(dst, s, sc)
}
