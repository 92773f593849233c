package encode

import (
	"fmt"
	"strings"
	"unicode"
)

// Limits on a template and on one rendering of it. Published templates are a few kilobytes and take a few
// thousand steps; the limits only keep a hostile or broken one from running for ever.
const (
	maxTemplateBytes = 1 << 20
	maxNesting       = 64
	maxSteps         = 1 << 20
	maxRenderedBytes = 64 << 20
)

// A templateError is a chat template that can't be rendered right; Line is 1-based in the template.
type templateError struct {
	Line int
	Text string
}

func (e *templateError) Error() string {
	return fmt.Sprintf("encode: chat template line %d: %s", e.Line, e.Text)
}

func templateErrorf(line int, format string, args ...any) error {
	return &templateError{Line: line, Text: fmt.Sprintf(format, args...)}
}

// A segment is one piece of a template: literal text, {{ an expression }} or {% a statement %}.
type segment struct {
	kind   segmentKind
	text   string  // literal text, whitespace control applied
	tokens []token // of an expression or a statement, closed by a tokenEnd
	line   int
}

type segmentKind int

const (
	segmentText segmentKind = iota
	segmentOutput
	segmentStatement
)

// scan cuts a template into segments the way Jinja2 does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off, which is how chat templates are rendered:
// the newline after a block or comment goes, so does the indentation in front of one, and "-" strips all
// whitespace on its side. Comments leave no segment.
func scan(source string) ([]segment, error) {
	if len(source) > maxTemplateBytes {
		return nil, fmt.Errorf("encode: chat template has %d bytes, want at most %d", len(source), maxTemplateBytes)
	}
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	source = strings.TrimSuffix(source, "\n")
	s := &scanner{src: source, line: 1, lineStart: true}
	for s.pos < len(s.src) {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	return s.out, nil
}

type scanner struct {
	src       string
	pos, line int
	lineStart bool // the text at pos begins a line, or the line's break was eaten by a tag
	out       []segment
}

func (s *scanner) next() error {
	rest := s.src[s.pos:]
	open := nextTag(rest)
	if open < 0 {
		s.text(rest)
		s.pos = len(s.src)
		return nil
	}
	text, kind := rest[:open], rest[open+1]
	after := rest[open+2:]
	switch {
	case strings.HasPrefix(after, "-"):
		text, after = strings.TrimRightFunc(text, isSpace), after[1:]
	case strings.HasPrefix(after, "+"):
		after = after[1:]
	case kind != '{':
		text = s.stripIndent(text)
	}
	s.text(text)
	s.line += strings.Count(rest[:open], "\n")
	s.pos = len(s.src) - len(after)
	if kind == '#' {
		return s.comment()
	}
	return s.tag(kind)
}

// nextTag finds the first "{{", "{%" or "{#" of s.
func nextTag(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '{' && (s[i+1] == '{' || s[i+1] == '%' || s[i+1] == '#') {
			return i
		}
	}
	return -1
}

// stripIndent drops the spaces in front of a block that is the first thing of its line.
func (s *scanner) stripIndent(text string) string {
	start := strings.LastIndexByte(text, '\n') + 1
	if (start > 0 || s.lineStart) && strings.TrimLeftFunc(text[start:], isSpace) == "" {
		return text[:start]
	}
	return text
}

func (s *scanner) text(text string) {
	if text != "" {
		s.out = append(s.out, segment{kind: segmentText, text: text, line: s.line})
	}
}

func (s *scanner) comment() error {
	end := strings.Index(s.src[s.pos:], "#}")
	if end < 0 {
		return templateErrorf(s.line, "comment is not closed")
	}
	body := s.src[s.pos : s.pos+end]
	s.line += strings.Count(body, "\n")
	s.pos += end + 2
	s.closeTag(lastByte(body), true)
	return nil
}

// tag reads one expression or statement up to and including its end.
func (s *scanner) tag(kind byte) error {
	seg := segment{kind: segmentOutput, line: s.line}
	end := "}}"
	if kind == '%' {
		seg.kind, end = segmentStatement, "%}"
	}
	lex := &lexer{src: s.src, pos: s.pos, line: s.line, end: end}
	tokens, sign, err := lex.all()
	if err != nil {
		return err
	}
	seg.tokens = tokens
	s.pos, s.line = lex.pos, lex.line
	s.out = append(s.out, seg)
	s.closeTag(sign, kind == '%')
	return nil
}

// closeTag applies the whitespace control behind a tag; block says whether a plain end eats one newline.
func (s *scanner) closeTag(sign byte, block bool) {
	start := s.pos
	switch {
	case sign == '-':
		rest := strings.TrimLeftFunc(s.src[s.pos:], isSpace)
		s.pos = len(s.src) - len(rest)
	case sign != '+' && block && strings.HasPrefix(s.src[s.pos:], "\n"):
		s.pos++
	}
	eaten := s.src[start:s.pos]
	s.line += strings.Count(eaten, "\n")
	s.lineStart = strings.HasSuffix(eaten, "\n")
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// isSpace is Python's str.isspace: Unicode white space and the four ASCII separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
