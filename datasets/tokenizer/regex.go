package tokenizer

import (
	"fmt"
	"strings"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// matchTimeout ends the search for one match of a pattern that backtracks without
// end on some text. Patterns of published models take microseconds.
const matchTimeout = 10 * time.Second

// A TimeoutError reports a regular expression that takes too long on a text. It
// is about the tokenizer and the machine, not the text: the same text may pass
// elsewhere.
type TimeoutError struct {
	Expr  string        // as given to the matcher
	Bytes int           // size of the text
	Limit time.Duration // for one match
}

// Error names the expression and the limit.
func (e *TimeoutError) Error() string {
	return fmt.Sprintf("tokenizer: regular expression %.200q takes more than %v for one match in a text of %d bytes", e.Expr, e.Limit, e.Bytes)
}

// regex is a pattern given as a regular expression. The reference runs them
// with Oniguruma in Ruby's dialect, where ^ and $ match at every line.
type regex struct{ re *regexp2.Regexp }

// parseRegex compiles expr; for the expressions of common model families it
// returns a scanner that gives the same pieces sooner.
func parseRegex(part, expr string) (pattern, error) {
	if s, ok := scanners[expr]; ok {
		return s, nil
	}
	return compileRegex(part, expr)
}

func compileRegex(part, expr string) (pattern, error) {
	flat, err := flattenClasses(part, expr)
	if err != nil {
		return nil, err
	}
	re, err := regexp2.Compile(flat, regexp2.Multiline)
	if err != nil {
		return nil, malformed(part, "regular expression: %w", err)
	}
	re.MatchTimeout = matchTimeout
	return regex{re}, nil
}

func (r regex) cuts(dst []cut, text string) ([]cut, error) {
	matches, err := r.re.FindAllStringIndex(text, -1)
	if err != nil {
		return nil, matchError(r.re, text, err)
	}
	done := 0
	for _, m := range matches {
		dst = addMatch(dst, done, m[0], m[1])
		done = m[1]
	}
	return addRest(dst, done, text), nil
}

// matchError tells a search that took too long from one that is broken.
func matchError(re *regexp2.Regexp, text string, err error) error {
	if strings.HasPrefix(err.Error(), "match timeout") { // the library has no value for it, and quotes the whole text
		return &TimeoutError{re.String(), len(text), re.MatchTimeout}
	}
	return malformed("regular expression", "%w", err)
}

// flattenClasses rewrites expr from Ruby's dialect to .NET's where the two
// write character classes differently: [a[bc]] is a union in the one and takes
// the inner bracket for a character in the other. Intersections, negated inner
// classes and [:names:] have no counterpart and are refused.
func flattenClasses(part, expr string) (string, error) {
	var out strings.Builder
	depth := 0
	for i := 0; i < len(expr); i++ {
		rest := expr[i:]
		switch {
		case expr[i] == '\\' && i+1 < len(expr):
			out.WriteString(expr[i : i+2])
			i++
			continue
		case depth > 0 && (strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "[^") || strings.HasPrefix(rest, "[:")):
			return "", &UnsupportedError{part + " regular expression", expr, "one without &&, [^…] or [:…:] inside a character class"}
		case expr[i] == '[':
			depth++
			if depth > 1 {
				continue
			}
			out.WriteByte('[')
			for _, first := range []string{"^", "]"} { // no end of the class yet
				if strings.HasPrefix(expr[i+1:], first) {
					out.WriteString(first)
					i++
				}
			}
			continue
		case expr[i] == ']' && depth > 0:
			depth--
			if depth > 0 {
				continue
			}
		}
		out.WriteByte(expr[i])
	}
	return out.String(), nil
}
