package encode

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenInt
	tokenFloat
	tokenString
	tokenOp
)

type token struct {
	kind tokenKind
	text string // a string's value, escapes resolved
	line int
}

func (t token) String() string {
	if t.kind == tokenEnd {
		return "end of tag"
	}
	return strconv.Quote(t.text)
}

// A lexer reads the tokens inside one tag.
type lexer struct {
	src       string
	pos, line int
	end       string // "}}" or "%}"
	brackets  []byte // closing brackets awaited: the tag can't end inside them
}

// all reads the tokens up to the end of the tag; sign is '-', '+' or 0, the whitespace control of that end.
func (l *lexer) all() (tokens []token, sign byte, err error) {
	for {
		l.skipSpace()
		if len(l.brackets) == 0 {
			if n, sign := l.atEnd(); n > 0 {
				l.pos += n
				return append(tokens, token{kind: tokenEnd, line: l.line}), sign, nil
			}
		}
		t, err := l.token()
		if err != nil {
			return nil, 0, err
		}
		tokens = append(tokens, t)
	}
}

func (l *lexer) skipSpace() {
	rest := strings.TrimLeftFunc(l.src[l.pos:], isSpace)
	l.line += strings.Count(l.src[l.pos:len(l.src)-len(rest)], "\n")
	l.pos = len(l.src) - len(rest)
}

func (l *lexer) atEnd() (n int, sign byte) {
	rest := l.src[l.pos:]
	if strings.HasPrefix(rest, l.end) {
		return len(l.end), 0
	}
	if strings.HasPrefix(rest, "-"+l.end) || l.end == "%}" && strings.HasPrefix(rest, "+%}") {
		return 1 + len(l.end), rest[0]
	}
	return 0, 0
}

func (l *lexer) token() (token, error) {
	if l.pos >= len(l.src) {
		return token{}, templateErrorf(l.line, "tag is not closed, want %q", l.end)
	}
	switch c := l.src[l.pos]; {
	case isNameByte(c) && !isDigit(c):
		return l.take(tokenName, span(l.src[l.pos:], isNameByte)), nil
	case isDigit(c):
		return l.number()
	case c == '"' || c == '\'':
		return l.quoted(c)
	case c >= utf8.RuneSelf:
		return token{}, templateErrorf(l.line, "a name outside ASCII isn't supported")
	default:
		return l.operator()
	}
}

func (l *lexer) take(kind tokenKind, n int) token {
	t := token{kind: kind, text: l.src[l.pos : l.pos+n], line: l.line}
	l.pos += n
	return t
}

func (l *lexer) number() (token, error) {
	rest := l.src[l.pos:]
	n := span(rest, isDigit)
	kind := tokenInt
	if len(rest) > n+1 && rest[n] == '.' && isDigit(rest[n+1]) {
		kind = tokenFloat
		n += 1 + span(rest[n+1:], isDigit)
	}
	if n < len(rest) && isNameByte(rest[n]) {
		return token{}, templateErrorf(l.line, "number %q isn't supported, want a decimal integer or fraction", rest[:n+1])
	}
	return l.take(kind, n), nil
}

func (l *lexer) operator() (token, error) {
	rest := l.src[l.pos:]
	for _, op := range []string{"//", "**", "==", "!=", ">=", "<="} {
		if strings.HasPrefix(rest, op) {
			return l.take(tokenOp, 2), nil
		}
	}
	c := rest[0]
	if !strings.ContainsRune("+-/*%~[](){}><=.:|,", rune(c)) {
		return token{}, templateErrorf(l.line, "unexpected character %q", c)
	}
	if i := strings.IndexByte("([{", c); i >= 0 {
		l.brackets = append(l.brackets, ")]}"[i])
	}
	if strings.IndexByte(")]}", c) >= 0 {
		last := len(l.brackets) - 1
		if last < 0 || l.brackets[last] != c {
			return token{}, templateErrorf(l.line, "unbalanced %q", c)
		}
		l.brackets = l.brackets[:last]
	}
	return l.take(tokenOp, 1), nil
}

// quoted reads a string literal and resolves its escapes as Python does.
func (l *lexer) quoted(quote byte) (token, error) {
	line := l.line
	var b strings.Builder
	for i := l.pos + 1; i < len(l.src); i++ {
		switch c := l.src[i]; c {
		case quote:
			l.pos = i + 1
			return token{kind: tokenString, text: b.String(), line: line}, nil
		case '\\':
			n, ok := unescape(&b, l.src[i:])
			if !ok {
				return token{}, templateErrorf(l.line, "string escape %.4q isn't supported", l.src[i:])
			}
			l.line += strings.Count(l.src[i:i+n], "\n")
			i += n - 1
		case '\n':
			l.line++
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return token{}, templateErrorf(line, "string is not closed")
}

var simpleEscapes = map[byte]string{
	'\n': "", '\\': `\`, '\'': "'", '"': `"`, 'a': "\a", 'b': "\b",
	'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescape writes the value of the escape s begins with and returns its length.
func unescape(b *strings.Builder, s string) (n int, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	if text, ok := simpleEscapes[s[1]]; ok {
		b.WriteString(text)
		return 2, true
	}
	digits, base := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]], 16
	start := 2
	switch {
	case digits > 0:
		if len(s) < 2+digits {
			return 0, false
		}
	case s[1] >= '0' && s[1] <= '7':
		start, base = 1, 8
		for digits < 3 && 1+digits < len(s) && s[1+digits] >= '0' && s[1+digits] <= '7' {
			digits++
		}
	case s[1] == 'N':
		return 0, false
	default: // Python keeps the backslash of an escape it doesn't know
		b.WriteByte('\\')
		return 1, true
	}
	code, err := strconv.ParseUint(s[start:start+digits], base, 32)
	if err != nil || !utf8.ValidRune(rune(code)) {
		return 0, false
	}
	b.WriteRune(rune(code))
	return start + digits, true
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNameByte(c byte) bool {
	return c == '_' || isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
