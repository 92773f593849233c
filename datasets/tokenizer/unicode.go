package tokenizer

import (
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// unicodeForm returns the normalizer for one of Unicode's normal forms.
func unicodeForm(form norm.Form) normalizer {
	return func(s span) (span, error) {
		if form.IsNormalString(s.text) {
			return s, nil
		}
		w := rewrite(s)
		var it norm.Iter
		for it.InitString(form, s.text); !it.Done(); {
			start := it.Pos()
			text := string(it.Next())
			if end := it.Pos(); text == s.text[start:end] {
				w.keep(start, end)
			} else {
				w.put(text, start, end)
			}
		}
		return w.done(), nil
	}
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
