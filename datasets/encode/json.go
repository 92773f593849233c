package encode

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
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

// DefaultDate is what strftime_now tells a chat template: a fixed day, because token ids that change with the
// clock can't be cached. It is the day Llama's own templates fall back to.
var DefaultDate = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

var dateLayouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'y': "06", 'j': "002",
}

// strftimeNow formats the date of the rendering as Python's strftime does in the C locale.
func strftimeNow(r *rendering, args callArgs) (any, error) {
	bound, given, err := args.strings("format")
	if err != nil || !given[0] {
		return nil, errors.New("strftime_now wants a format")
	}
	format, unpadded := bound[0], map[byte]string{'d': "2", 'm': "1", 'I': "3"}
	r.spent.usedDate = true
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		layouts := dateLayouts
		if format[i] == '-' && i+1 < len(format) {
			i++
			layouts = unpadded
		}
		layout, ok := layouts[format[i]]
		switch {
		case ok:
			b.WriteString(r.spent.date.Format(layout))
		case format[i] == '%':
			b.WriteByte('%')
		default:
			return nil, fmt.Errorf("strftime_now format %%%c isn't supported", format[i])
		}
	}
	return b.String(), r.grow(b.Len())
}
