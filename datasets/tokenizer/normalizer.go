package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A normalizer rewrites text before it is split.
type normalizer func(span) (span, error)

const normalizers = "NFC, NFD, NFKC, NFKD, Lowercase, Replace, Prepend, Strip or Sequence"

func parseNormalizers(raw json.RawMessage) ([]normalizer, error) {
	return parseParts("normalizer", "normalizers", raw, parseNormalizer)
}

func parseNormalizer(part, kind string, raw json.RawMessage) (normalizer, error) {
	switch kind {
	case "NFC":
		return unicodeForm(norm.NFC), nil
	case "NFD":
		return unicodeForm(norm.NFD), nil
	case "NFKC":
		return unicodeForm(norm.NFKC), nil
	case "NFKD":
		return unicodeForm(norm.NFKD), nil
	case "Lowercase":
		return lowercase, nil
	case "Prepend":
		return parsePrepend(part, raw)
	case "Strip":
		return parseStrip(part, raw)
	case "Replace":
		r, err := parseReplace(part, raw)
		return r.normalize, err
	}
	return nil, &UnsupportedError{part, kind, normalizers}
}

func normalize(s span, all []normalizer) (span, error) {
	var err error
	for _, n := range all {
		if s.text == "" {
			break
		}
		if s, err = n(s); err != nil {
			return span{}, err
		}
	}
	return s, nil
}

// lowercase maps every character on its own, without regard to its neighbours.
func lowercase(s span) (span, error) {
	w := rewrite(s)
	for i, r := range s.text {
		w.put(lower(r), i, i+utf8.RuneLen(r))
	}
	return w.done(), nil
}

// lower returns the lower case of r as the Unicode standard has it: of all
// characters only İ becomes two, which unicode.ToLower leaves out.
func lower(r rune) string {
	if r == 'İ' {
		return "i̇"
	}
	return string(unicode.ToLower(r))
}

func parsePrepend(part string, raw json.RawMessage) (normalizer, error) {
	var c struct{ Prepend string }
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	return func(s span) (span, error) { return prepend(s, c.Prepend), nil }, nil
}

func prepend(s span, text string) span {
	w := rewrite(s)
	w.put(text, 0, 0)
	w.keep(0, len(s.text))
	return w.done()
}

func parseStrip(part string, raw json.RawMessage) (normalizer, error) {
	var c struct {
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	return func(s span) (span, error) {
		start, end := 0, len(s.text)
		if c.Left {
			start = end - len(strings.TrimLeftFunc(s.text, unicode.IsSpace))
		}
		if c.Right {
			end = start + len(strings.TrimRightFunc(s.text[start:], unicode.IsSpace))
		}
		return s.slice(start, end), nil
	}, nil
}

// A replacement puts content in place of all that matches a pattern. It serves
// as a normalizer and as a decoder.
type replacement struct {
	pattern pattern
	content string
}

func parseReplace(part string, raw json.RawMessage) (*replacement, error) {
	var c struct {
		Pattern json.RawMessage
		Content *string
	}
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	if c.Content == nil {
		return nil, malformed(part, "Replace has no content")
	}
	p, err := parsePattern(part, c.Pattern)
	return &replacement{p, *c.Content}, err
}

func (r *replacement) normalize(s span) (span, error) {
	cuts, err := r.pattern.cuts(nil, s.text)
	if err != nil || len(cuts) == 1 && !cuts[0].match {
		return s, err
	}
	w := rewrite(s)
	for _, c := range cuts {
		if c.match {
			w.put(r.content, c.start, c.end)
		} else {
			w.keep(c.start, c.end)
		}
	}
	return w.done(), nil
}
