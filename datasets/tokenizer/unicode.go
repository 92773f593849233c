package tokenizer

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// unicodeForm returns the normalizer for one of Unicode's normal forms
// (Unicode Standard Annex 15). The forms of x/text put U+034F between more than
// 30 marks in a row, which Unicode's do not; so of x/text only the tables are
// used here, one character at a time.
func unicodeForm(form norm.Form) normalizer {
	parts, compose := norm.NFD, form == norm.NFC || form == norm.NFKC
	if form == norm.NFKC || form == norm.NFKD {
		parts = norm.NFKD
	}
	return func(s span) (span, error) {
		if form.IsNormalString(s.text) {
			return s, nil
		}
		chars := decompose(s.text, parts)
		if compose {
			chars = recompose(chars)
		}
		return writeChars(s, chars), nil
	}
}

// A char is a character of normalized text, its combining class and the bytes
// of the text before that it was made of.
type char struct {
	r          rune
	class      uint8
	start, end int
}

// decompose takes the characters of text apart and puts the marks on each into
// the order of their classes.
func decompose(text string, parts norm.Form) []char {
	chars := make([]char, 0, len(text))
	marks := 0 // where the run of marks began that is still going on
	add := func(r rune, class uint8, start, end int) {
		if class == 0 {
			sortMarks(chars[marks:])
			marks = len(chars) + 1
		}
		chars = append(chars, char{r, class, start, end})
	}
	for i, r := range text {
		if r < utf8.RuneSelf {
			add(r, 0, i, i+1)
			continue
		}
		end := i + utf8.RuneLen(r)
		for _, part := range parts.String(text[i:end]) {
			add(part, parts.PropertiesString(string(part)).CCC(), i, end)
		}
	}
	sortMarks(chars[marks:])
	return chars
}

func sortMarks(marks []char) {
	slices.SortStableFunc(marks, func(a, b char) int { return int(a.class) - int(b.class) })
}

// recompose joins each mark, and each character that directly follows, to the
// last character of class 0 where Unicode has one character for both. A mark is
// blocked by one of the same class in between.
func recompose(chars []char) []char {
	out := chars[:0]
	base := -1
	for _, c := range chars {
		last := len(out) - 1
		if base >= 0 && (last == base || out[last].class < c.class) {
			if r, ok := joined(out[base].r, c.r); ok {
				b := &out[base]
				b.r, b.start, b.end = r, min(b.start, c.start), max(b.end, c.end)
				continue
			}
		}
		if c.class == 0 {
			base = len(out)
		}
		out = append(out, c)
	}
	return out
}

// joined returns the one character that a and b are together, if there is one.
func joined(a, b rune) (rune, bool) {
	if b < 0x300 { // the first mark
		return 0, false
	}
	s := norm.NFC.String(string([]rune{a, b}))
	r, size := utf8.DecodeRuneInString(s)
	return r, size == len(s)
}

// writeChars writes chars in place of s. Since marks may have changed places, a
// character and the marks on it all stand for what all of them were made of.
func writeChars(s span, chars []char) span {
	w := rewrite(s)
	var text []byte
	for len(chars) > 0 {
		start, end := chars[0].start, chars[0].end
		text = utf8.AppendRune(text[:0], chars[0].r)
		n := 1
		for ; n < len(chars) && (chars[n].class > 0 || chars[n].start < end); n++ {
			start, end = min(start, chars[n].start), max(end, chars[n].end)
			text = utf8.AppendRune(text, chars[n].r)
		}
		if string(text) == s.text[start:end] {
			w.keep(start, end)
		} else {
			w.put(string(text), start, end)
		}
		chars = chars[n:]
	}
	return w.done()
}

// isWord reports whether r is a word character (\w) as the Rust regex crate has
// it: Alphabetic, marks, decimal digits, connectors and joiners.
func isWord(r rune) bool {
	if r < 0x80 {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
	}
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Join_Control)
}

// isPunct reports whether r is punctuation: Unicode's, and all of ASCII's with
// the symbols among it.
func isPunct(r rune) bool {
	switch r {
	case '$', '+', '<', '=', '>', '^', '`', '|', '~':
		return true
	}
	return unicode.IsPunct(r)
}
