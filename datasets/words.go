package datasets

import (
	"unicode"
	"unicode/utf8"
)

// splitWords makes the words that both completions open with the prompt.
//
// The cut moves back from the first difference to a place that is safe for any
// tokenizer: before white space (which goes with the completion), or behind a
// full-width punctuation mark, as in scripts that set no spaces. So it never
// falls inside a word, a number, a character, or a character with its combining
// marks. Moving back costs nothing: what both completions then open with has the
// same log-probability in both and cancels in every log-ratio of the two.
func splitWords(p *Pair, names [numColumns]string) *RowError {
	a, b := p.Chosen.Plain, p.Rejected.Plain
	n := safeCut(a, b)
	if n == 0 {
		return refuse(names[colChosen], NoPrompt, "shares no first word with column %q, and there is no prompt", names[colRejected])
	}
	p.PromptImplicit = true
	p.Prompt = Text{Plain: a[:n]}
	p.Chosen.Plain, p.Rejected.Plain = a[n:], b[n:]
	return nil
}

// safeCut returns the last safe place in what a and b open with, 0 for none.
// Something besides white space is left on every side.
func safeCut(a, b string) int {
	for n := sharedRunes(a, b); n > 0; {
		if isSafe(a, n) && isSafe(b, n) && !isBlank(a[n:]) && !isBlank(b[n:]) && !isBlank(a[:n]) {
			return n
		}
		_, size := utf8.DecodeLastRuneInString(a[:n])
		n -= size
	}
	return 0
}

// sharedRunes returns the length in bytes of the characters a and b open with.
func sharedRunes(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && (n < len(a) && !utf8.RuneStart(a[n]) || n < len(b) && !utf8.RuneStart(b[n])) {
		n--
	}
	return n
}

// isSafe reports whether a text may be cut at s[n], 0 < n.
func isSafe(s string, n int) bool {
	if n == len(s) {
		return false
	}
	before, _ := utf8.DecodeLastRuneInString(s[:n])
	after, size := utf8.DecodeRuneInString(s[n:])
	switch {
	case isBreak(after):
		// A run of white space stays whole, and so does a number grouped by spaces.
		next, _ := utf8.DecodeRuneInString(s[n+size:])
		return !unicode.IsSpace(before) && !(unicode.IsDigit(before) && unicode.IsDigit(next)) && !unicode.IsMark(next)
	case isFullStop(before):
		return !unicode.IsMark(after) && !unicode.IsSpace(after) && !isJoiner(after) && !isFullStop(after)
	}
	return false
}

// isBreak reports whether r is white space where a line may be broken.
func isBreak(r rune) bool {
	switch r {
	case '\u00a0', '\u2007', '\u202f': // no-break, figure and narrow no-break space
		return false
	}
	return unicode.IsSpace(r)
}

// isFullStop reports whether r is punctuation of scripts that set no spaces.
func isFullStop(r rune) bool {
	switch r {
	case '。', '！', '？', '：', '；', '，', '、':
		return true
	}
	return false
}

// isJoiner reports whether r binds to the character before it without being a mark.
func isJoiner(r rune) bool { return r == '\u200d' || r == '\u200c' }
