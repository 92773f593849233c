package encode

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tojsonFilter is the tojson Hugging Face gives templates: Python's json.dumps with ensure_ascii off, which puts
// ", " and ": " between things, not Jinja's own HTML-safe form.
func tojsonFilter(r *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return nil, err
	}
	if _, missing := bound[2].(undefined); !missing && bound[2] != nil || truth(bound[0]) {
		return nil, errors.New("ensure_ascii and separators aren't supported")
	}
	w := &jsonWriter{r: r, sort: truth(bound[3]), indent: -1}
	switch indent := bound[1].(type) {
	case nil, undefined:
	case int:
		w.indent = min(max(indent, 0), 16)
	default:
		return nil, errors.New("indent wants an integer")
	}
	if err := w.value(v, 1); err != nil {
		return nil, err
	}
	return w.String(), r.grow(w.Len())
}

type jsonWriter struct {
	strings.Builder
	r      *rendering
	indent int // -1: one line
	sort   bool
}

func (w *jsonWriter) value(v any, depth int) error {
	if depth > maxNesting {
		return errors.New("value is nested too deep")
	}
	if err := w.r.step(1); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		w.WriteString("null")
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case int:
		w.WriteString(strconv.Itoa(v))
	case string:
		w.quote(v)
	case []any:
		return w.sequence("[]", len(v), depth, func(i int) error { return w.value(v[i], depth+1) })
	case *dict:
		keys := v.keys
		if w.sort {
			keys = slices.Sorted(slices.Values(keys))
		}
		return w.sequence("{}", len(keys), depth, func(i int) error {
			w.quote(keys[i])
			w.WriteString(": ")
			return w.value(v.values[keys[i]], depth+1)
		})
	default:
		return fmt.Errorf("%s can't be written as JSON", kindOf(v))
	}
	return nil
}

func (w *jsonWriter) sequence(brackets string, n, depth int, element func(int) error) error {
	w.WriteByte(brackets[0])
	for i := range n {
		switch {
		case w.indent >= 0:
			if i > 0 {
				w.WriteByte(',')
			}
			w.WriteString("\n" + strings.Repeat(" ", depth*w.indent))
		case i > 0:
			w.WriteString(", ")
		}
		if err := element(i); err != nil {
			return err
		}
	}
	if n > 0 && w.indent >= 0 {
		w.WriteString("\n" + strings.Repeat(" ", (depth-1)*w.indent))
	}
	w.WriteByte(brackets[1])
	return nil
}

var jsonEscapes = map[rune]string{
	'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\f': `\f`, '\b': `\b`,
}

func (w *jsonWriter) quote(s string) {
	w.WriteByte('"')
	for i, r := range s {
		switch escaped, ok := jsonEscapes[r]; {
		case ok:
			w.WriteString(escaped)
		case r < 0x20:
			fmt.Fprintf(w, `\u%04x`, r)
		default:
			w.WriteString(s[i : i+utf8.RuneLen(r)])
		}
	}
	w.WriteByte('"')
}
