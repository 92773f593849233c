package job

import (
	"errors"
	"fmt"
	"strings"
)

// expand replaces ${NAME} and ${NAME:-default} by variables of the environment; $${ stands
// for ${ itself. told says whether a variable was named.
func expand(text string, getenv func(string) (string, bool)) (out string, told bool, err error) {
	var b strings.Builder
	for {
		at := strings.Index(text, "${")
		if at < 0 {
			b.WriteString(text)
			return b.String(), told, nil
		}
		if at > 0 && text[at-1] == '$' {
			b.WriteString(text[:at-1] + "${")
			text = text[at+2:]
			continue
		}
		b.WriteString(text[:at])
		inside, rest, closed := strings.Cut(text[at+2:], "}")
		name, fallback, has := strings.Cut(inside, ":-")
		if !closed {
			return "", told, errors.New("${ is not closed by }, want ${NAME} or ${NAME:-default} ($${ for the characters ${)")
		}
		if !isName(name) {
			return "", told, fmt.Errorf("%q names no variable, want ${NAME} or ${NAME:-default} ($${ for the characters ${)", "${"+inside+"}")
		}
		value, set := getenv(name)
		if value == "" && has {
			value, set = fallback, true
		}
		if !set {
			return "", told, fmt.Errorf("the environment has no %s; ${%s:-default} would do without", name, name)
		}
		b.WriteString(value)
		text, told = rest, true
	}
}

// isName reports a name that shells give variables.
func isName(s string) bool {
	for i, r := range s {
		if !(r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || i > 0 && r >= '0' && r <= '9') {
			return false
		}
	}
	return s != ""
}
