package tokenizer

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// A cut is a stretch of text that matches a pattern, or one between matches.
type cut struct {
	start, end int
	match      bool
}

// A pattern cuts text up: cuts appends to dst stretches that cover all of text,
// in order.
type pattern interface {
	cuts(dst []cut, text string) ([]cut, error)
}

// parsePattern reads {"String": …} or {"Regex": …}.
func parsePattern(part string, raw json.RawMessage) (pattern, error) {
	var p struct{ String, Regex *string }
	if err := decode(part+".pattern", raw, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Regex != nil && p.String == nil:
		return parseRegex(part, *p.Regex)
	case p.String != nil && p.Regex == nil && *p.String != "":
		return literal(*p.String), nil
	}
	return nil, malformed(part+".pattern", "is %.60s, want a String that is not empty or a Regex", raw)
}

// literal is a pattern that matches one string.
type literal string

func (l literal) cuts(dst []cut, text string) ([]cut, error) {
	done := 0
	for done < len(text) {
		at := strings.Index(text[done:], string(l))
		if at < 0 {
			break
		}
		dst = addMatch(dst, done, done+at, done+at+len(l))
		done += at + len(l)
	}
	return addRest(dst, done, text), nil
}

// class is a pattern that matches every single character for which it is true.
type class func(rune) bool

func (c class) cuts(dst []cut, text string) ([]cut, error) {
	done := 0
	for i, r := range text {
		if c(r) {
			end := i + utf8.RuneLen(r)
			dst = addMatch(dst, done, i, end)
			done = end
		}
	}
	return addRest(dst, done, text), nil
}

// scanner is a pattern that matches all of any text, piece by piece: it returns
// the length of the piece at the start of its argument, which is not empty.
type scanner func(string) int

func (s scanner) cuts(dst []cut, text string) ([]cut, error) {
	for i := 0; i < len(text); {
		n := s(text[i:])
		dst = append(dst, cut{i, i + n, true})
		i += n
	}
	return dst, nil
}

// addMatch adds the match of bytes start to end, and what lies between it and
// the end of the match before, done.
func addMatch(dst []cut, done, start, end int) []cut {
	if done < start {
		dst = append(dst, cut{done, start, false})
	}
	return append(dst, cut{start, end, true})
}

func addRest(dst []cut, done int, text string) []cut {
	if done < len(text) {
		dst = append(dst, cut{done, len(text), false})
	}
	return dst
}

// A behavior says what becomes of the matches when text is split: pieces of
// their own, part of a neighbour, or nothing. It works in place.
type behavior func([]cut) []cut

var behaviors = map[string]behavior{
	"Removed":            removed,
	"Isolated":           isolated,
	"Contiguous":         contiguous,
	"MergedWithPrevious": mergedWithPrevious,
	"MergedWithNext":     mergedWithNext,
}

func parseBehavior(part, name string) (behavior, error) {
	b, ok := behaviors[name]
	if !ok {
		return nil, &UnsupportedError{part + ".behavior", name, "Removed, Isolated, Contiguous, MergedWithPrevious or MergedWithNext"}
	}
	return b, nil
}

// isolated leaves every stretch on its own.
func isolated(cuts []cut) []cut { return cuts }

// removed leaves the stretches between matches.
func removed(cuts []cut) []cut {
	out := cuts[:0]
	for _, c := range cuts {
		if !c.match {
			out = append(out, c)
		}
	}
	return out
}

// contiguous makes neighbouring matches one.
func contiguous(cuts []cut) []cut {
	return joinCuts(cuts, func(before, c cut) bool { return before.match == c.match })
}

// mergedWithPrevious adds a match to the stretch before it, unless that ends
// with a match itself.
func mergedWithPrevious(cuts []cut) []cut {
	return joinCuts(cuts, func(before, c cut) bool { return c.match && !before.match })
}

// mergedWithNext adds a match to the stretch after it; of several matches in a
// row only the last one is.
func mergedWithNext(cuts []cut) []cut {
	return joinCuts(cuts, func(before, c cut) bool { return before.match && !c.match })
}

// joinCuts joins each stretch to the one before it where join says so of the
// two as they were cut.
func joinCuts(cuts []cut, join func(before, c cut) bool) []cut {
	out := cuts[:0]
	var before cut
	for i, c := range cuts {
		if i > 0 && join(before, c) {
			out[len(out)-1].end = c.end
		} else {
			out = append(out, c)
		}
		before = c
	}
	return out
}
