package encode

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func trimFilter(r *rendering, v any, args callArgs) (any, error) {
	s, err := text(v)
	if err != nil {
		return nil, err
	}
	return stripMethod(strings.TrimFunc)(r, s, args)
}

func lengthFilter(_ *rendering, v any, args callArgs) (any, error) {
	if _, err := args.bind(); err != nil {
		return nil, err
	}
	return length(v)
}

func stringFilter(_ *rendering, v any, _ callArgs) (any, error)   { return text(v) }
func identityFilter(_ *rendering, v any, _ callArgs) (any, error) { return v, nil }

// mapText makes a filter of a string function; upper, lower and capitalize take any value's text.
func mapText(fn func(string) string) filterFunc {
	return func(r *rendering, v any, args callArgs) (any, error) {
		if _, err := args.bind(); err != nil {
			return nil, err
		}
		s, err := text(v)
		if err != nil {
			return nil, err
		}
		return fn(s), r.grow(len(s))
	}
}

// Full case mapping as Python's: strings.ToUpper leaves ß as it is. A Caser has state, so each call has its own.
func upper(s string) string { return cases.Upper(language.Und).String(s) }
func lower(s string) string { return cases.Lower(language.Und).String(s) }

func capitalize(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return string(unicode.ToTitle(r)) + strings.TrimPrefix(lower("x"+s[n:]), "x")
}

func endFilter(i int) filterFunc {
	return func(_ *rendering, v any, _ callArgs) (any, error) {
		items, err := iterate(v)
		if err != nil || len(items) == 0 {
			return undefined{"element of an empty sequence"}, err
		}
		return items[(len(items)+i)%len(items)], nil
	}
}

func listFilter(_ *rendering, v any, _ callArgs) (any, error) {
	items, err := iterate(v)
	return slices.Clone(items), err
}

func reverseFilter(_ *rendering, v any, _ callArgs) (any, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(items)
	slices.Reverse(out)
	if _, ok := v.(string); ok {
		s, _, err := concat(out, "")
		return s, err
	}
	return out, nil
}

func itemsFilter(_ *rendering, v any, _ callArgs) (any, error) {
	switch v := v.(type) {
	case undefined:
		return []any{}, nil
	case *dict:
		return v.items(), nil
	}
	return nil, fmt.Errorf("%s has no items", kindOf(v))
}

func (d *dict) items() []any {
	out := make([]any, len(d.keys))
	for i, key := range d.keys {
		out[i] = []any{key, d.values[key]}
	}
	return out
}

func joinFilter(r *rendering, v any, args callArgs) (any, error) {
	s, given, err := args.strings("d", "attribute")
	if err != nil {
		return nil, err
	}
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	if given[1] {
		if items, err = attributes(items, s[1]); err != nil {
			return nil, err
		}
	}
	out, n, err := concat(items, s[0])
	if err != nil {
		return nil, err
	}
	return out, r.grow(n)
}

func concat(items []any, separator string) (string, int, error) {
	parts := make([]string, len(items))
	for i, item := range items {
		s, err := text(item)
		if err != nil {
			return "", 0, err
		}
		parts[i] = s
	}
	out := strings.Join(parts, separator)
	return out, len(out), nil
}

// attributes reads one attribute, named "a" or "a.b" or an index, of each item.
func attributes(items []any, name string) ([]any, error) {
	out := make([]any, len(items))
	for i, v := range items {
		for part := range strings.SplitSeq(name, ".") {
			var key any = part
			if n, err := strconv.Atoi(part); err == nil {
				key = n
			}
			var err error
			if v, err = item(v, key); err != nil {
				return nil, err
			}
		}
		out[i] = v
	}
	return out, nil
}

func replaceFilter(r *rendering, v any, args callArgs) (any, error) {
	s, err := text(v)
	if err != nil {
		return nil, err
	}
	return replaceMethod(r, s, args)
}

func defaultFilter(_ *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("default_value", "boolean")
	if err != nil {
		return nil, err
	}
	if _, missing := bound[0].(undefined); missing && len(args.positional) == 0 {
		bound[0] = ""
	}
	_, unknown := v.(undefined)
	if unknown || truth(bound[1]) && !truth(v) {
		return bound[0], nil
	}
	return v, nil
}

func intFilter(_ *rendering, v any, args callArgs) (any, error) {
	if _, err := args.bind(); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case int:
		return v, nil
	case string:
		n, err := strconv.Atoi(strings.TrimFunc(v, isSpace))
		if err == nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("%s isn't a whole number", kindOf(v))
}

// mapFilter applies a filter by name, or reads an attribute, of each element.
func mapFilter(r *rendering, v any, args callArgs) (any, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	if name, ok := args.named["attribute"].(string); ok && len(args.named) == 1 && len(args.positional) == 0 {
		return attributes(items, name)
	}
	if len(args.positional) == 0 {
		return nil, errors.New("wants the name of a filter or an attribute")
	}
	name, _ := args.positional[0].(string)
	fn, ok := filters[name]
	if !ok {
		return nil, fmt.Errorf("filter %q isn't supported", name)
	}
	out := make([]any, len(items))
	for i, item := range items {
		if err := r.step(1); err != nil {
			return nil, err
		}
		if out[i], err = fn(r, item, callArgs{args.positional[1:], args.named}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// selectFilter keeps the elements for which a test of the element, or of its attribute, comes out as want.
func selectFilter(want, attr bool) filterFunc {
	return func(r *rendering, v any, args callArgs) (any, error) {
		items, err := iterate(v)
		if err != nil {
			return nil, err
		}
		subjects, rest := items, args.positional
		if attr {
			if len(rest) == 0 {
				return nil, errors.New("wants the name of an attribute")
			}
			name, _ := rest[0].(string)
			if subjects, err = attributes(items, name); err != nil {
				return nil, err
			}
			rest = rest[1:]
		}
		test := testFunc(is(truth))
		if len(rest) > 0 {
			name, _ := rest[0].(string)
			if test = tests[name]; test == nil {
				return nil, fmt.Errorf("test %q isn't supported", name)
			}
			rest = rest[1:]
		}
		out := []any{}
		for i, subject := range subjects {
			ok, err := test(subject, callArgs{positional: rest})
			if err != nil {
				return nil, err
			}
			if ok == want {
				out = append(out, items[i])
			}
		}
		return out, r.step(len(items))
	}
}

func indentFilter(r *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("width", "first", "blank")
	if err != nil {
		return nil, err
	}
	s, ok := v.(string)
	width, isInt := bound[0].(int)
	if _, missing := bound[0].(undefined); missing {
		width, isInt = 4, true
	}
	if !ok || !isInt || width < 0 || width > 64 {
		return nil, errors.New("wants a string and a small width")
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if (i > 0 || truth(bound[1])) && (line != "" || truth(bound[2])) {
			lines[i] = strings.Repeat(" ", width) + line
		}
	}
	out := strings.Join(lines, "\n")
	return out, r.grow(len(out))
}
