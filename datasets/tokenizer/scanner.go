package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// gpt2Regex is the expression of the ByteLevel pre-tokenizer.
const gpt2Regex = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// The expressions of Llama 3 and Qwen, which differ in how many digits make a
// piece: cl100kHead + \p{N} or \p{N}{1,3} + cl100kTail.
const (
	cl100kHead = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|`
	cl100kTail = `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scanners holds the expressions that are matched by hand.
var scanners = map[string]scanner{
	gpt2Regex:                              scanGPT2,
	cl100kHead + `\p{N}` + cl100kTail:      func(s string) int { return scanCL100K(s, 1) },
	cl100kHead + `\p{N}{1,3}` + cl100kTail: func(s string) int { return scanCL100K(s, 3) },
}

// A kind is what the expressions tell characters apart by.
type kind uint8

const (
	other kind = iota
	letter
	number
	space
)

var asciiKinds = func() (kinds [utf8.RuneSelf]kind) {
	for r := range rune(utf8.RuneSelf) {
		kinds[r] = slowKind(r)
	}
	return kinds
}()

func slowKind(r rune) kind {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// next returns the kind and length of the character at s[i], which is in range.
func next(s string, i int) (kind, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return asciiKinds[c], 1
	}
	r, size := utf8.DecodeRuneInString(s[i:])
	return slowKind(r), size
}

// run returns where the characters of kind k that start at s[i] end.
func run(s string, i int, k kind) int {
	for i < len(s) {
		got, size := next(s, i)
		if got != k {
			break
		}
		i += size
	}
	return i
}

// scanGPT2 returns the length of gpt2Regex's match at the start of s.
func scanGPT2(s string) int {
	if n := contraction(s, false); n > 0 {
		return n
	}
	i := 0
	if s[0] == ' ' && len(s) > 1 {
		i = 1
	}
	if k, size := next(s, i); k != space {
		return run(s, i+size, k)
	}
	return scanSpaces(s)
}

// scanCL100K returns the length of the match of the Llama-3 kind of expression
// at the start of s, with at most digits digits in a piece.
func scanCL100K(s string, digits int) int {
	if n := contraction(s, true); n > 0 {
		return n
	}
	k, size := next(s, 0)
	switch {
	case k == letter:
		return run(s, size, letter)
	case k == number:
		return runDigits(s, size, digits-1)
	case s[0] != '\r' && s[0] != '\n' && size < len(s):
		if after, n := next(s, size); after == letter {
			return run(s, size+n, letter)
		} else if s[0] == ' ' && after == other {
			return runNewlines(s, run(s, size+n, other))
		}
	}
	if k == other {
		return runNewlines(s, run(s, size, other))
	}
	end := run(s, 0, space)
	if n := strings.LastIndexAny(s[:end], "\r\n"); n >= 0 {
		return n + 1
	}
	return scanSpaces(s)
}

// scanSpaces returns the length of the match of \s+(?!\S)|\s+ at the start of
// s: all spaces, but the last of several if something follows them.
func scanSpaces(s string) int {
	end := run(s, 0, space)
	_, last := utf8.DecodeLastRuneInString(s[:end])
	if end < len(s) && end > last {
		return end - last
	}
	return end
}

func runDigits(s string, i, most int) int {
	for ; most > 0 && i < len(s); most-- {
		k, size := next(s, i)
		if k != number {
			break
		}
		i += size
	}
	return i
}

func runNewlines(s string, i int) int {
	for i < len(s) && (s[i] == '\r' || s[i] == '\n') {
		i++
	}
	return i
}

// contraction returns the length of 's, 't, 're, 've, 'm, 'll or 'd at the
// start of s, or 0; with fold, in any case.
func contraction(s string, fold bool) int {
	if s[0] != '\'' || len(s) < 2 {
		return 0
	}
	for _, c := range [...]string{"s", "t", "re", "ve", "m", "ll", "d"} {
		if strings.HasPrefix(s[1:], c) {
			return 1 + len(c)
		}
		if fold && len(s) > len(c) && strings.EqualFold(s[1:1+len(c)], c) {
			return 1 + len(c)
		}
	}
	if fold && strings.HasPrefix(s[1:], "ſ") { // the long s folds to s
		return 1 + len("ſ")
	}
	return 0
}
