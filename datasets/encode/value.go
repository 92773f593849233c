package encode

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Values of template expressions: string, int, float64, bool, nil (None), undefined, []any (list and tuple), *dict,
// *namespace, function (of the template's environment or a macro).
type (
	// undefined is what an unknown name, key or attribute is: false, printed as nothing, and an error to look into.
	undefined struct{ what string }

	// dict keeps the order its keys were put in, as Python's does.
	dict struct {
		keys   []string
		values map[string]any
	}

	// namespace is the one object a template may change.
	namespace struct{ values map[string]any }

	// function is what a template can call.
	function func(args []any, named map[string]any) (any, error)
)

func newDict() *dict { return &dict{values: map[string]any{}} }

func (d *dict) set(key string, value any) {
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = value
}

func (d *dict) list() []any {
	keys := make([]any, len(d.keys))
	for i, key := range d.keys {
		keys[i] = key
	}
	return keys
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case undefined:
		return fmt.Sprintf("undefined %q", v.what)
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int, float64:
		return "a number"
	case []any:
		return "a list"
	case *dict:
		return "a mapping"
	case *namespace:
		return "a namespace"
	default:
		return "a function"
	}
}

// truth is Python's bool(v).
func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case string:
		return v != ""
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case *dict:
		return len(v.keys) > 0
	default:
		return true
	}
}

// text is Python's str(v), for the values whose text doesn't need Python's repr.
func text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "None", nil
	case undefined:
		return "", nil
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int:
		return strconv.Itoa(v), nil
	default:
		return "", fmt.Errorf("%s can't be turned into text", kindOf(v))
	}
}

// equal is Python's a == b.
func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && equalLists(a, b)
	case *dict:
		b, ok := b.(*dict)
		return ok && equalDicts(a, b)
	case undefined:
		_, ok := b.(undefined)
		return ok
	case function:
		return false
	}
	x, xok := number(a)
	y, yok := number(b)
	if xok && yok {
		return x == y
	}
	switch b.(type) {
	case []any, *dict, undefined, function:
		return false
	}
	return a == b
}

func equalLists(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func equalDicts(a, b *dict) bool {
	if len(a.keys) != len(b.keys) {
		return false
	}
	for key, x := range a.values {
		if y, ok := b.values[key]; !ok || !equal(x, y) {
			return false
		}
	}
	return true
}

// number returns v as Python's arithmetic sees it: True is 1.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// less orders numbers and strings; lists can't be ordered here.
func less(a, b any) (bool, error) {
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			return x < y, nil // UTF-8 orders as its code points do
		}
	}
	x, xok := number(a)
	y, yok := number(b)
	if !xok || !yok {
		return false, fmt.Errorf("%s and %s can't be ordered", kindOf(a), kindOf(b))
	}
	return x < y, nil
}

// iterate lists the elements of v: characters, elements or keys.
func iterate(v any) ([]any, error) {
	switch v := v.(type) {
	case undefined:
		return nil, nil
	case []any:
		return v, nil
	case *dict:
		return v.list(), nil
	case string:
		var out []any
		for _, r := range v {
			out = append(out, string(r))
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s can't be iterated over", kindOf(v))
}

// contains is Python's item in v.
func contains(v, item any) (bool, error) {
	switch v := v.(type) {
	case string:
		s, ok := item.(string)
		if !ok {
			return false, fmt.Errorf("%s can't be in a string", kindOf(item))
		}
		return strings.Contains(v, s), nil
	case *dict:
		s, ok := item.(string)
		_, found := v.values[s]
		return ok && found, nil
	}
	items, err := iterate(v)
	for _, x := range items {
		if equal(x, item) {
			return true, nil
		}
	}
	return false, err
}

// length is Python's len(v): code points of a string.
func length(v any) (int, error) {
	switch v := v.(type) {
	case undefined:
		return 0, nil
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case *dict:
		return len(v.keys), nil
	}
	return 0, fmt.Errorf("%s has no length", kindOf(v))
}

// slice is Python's v[from:to:step]; nil stands for a bound left out.
func slice(v any, from, to, step *int) (any, error) {
	var items []any
	s, isString := v.(string)
	list, isList := v.([]any)
	switch {
	case isString:
		items, _ = iterate(s)
	case isList:
		items = list
	default:
		return nil, fmt.Errorf("%s can't be sliced", kindOf(v))
	}
	by := 1
	if step != nil {
		by = *step
	}
	if by == 0 {
		return nil, fmt.Errorf("slice step is 0")
	}
	out := []any{}
	start, stop := bounds(len(items), from, to, by)
	for i := start; by > 0 && i < stop || by < 0 && i > stop; i += by {
		out = append(out, items[i])
		if by > len(items) || by < -len(items) {
			break
		}
	}
	if !isString {
		return out, nil
	}
	var b strings.Builder
	for _, c := range out {
		b.WriteString(c.(string))
	}
	return b.String(), nil
}

// bounds resolves a slice's bounds over n elements as Python's slice.indices does.
func bounds(n int, from, to *int, step int) (start, stop int) {
	low, high := 0, n
	if step < 0 {
		low, high = -1, n-1
	}
	resolve := func(p *int, missing int) int {
		if p == nil {
			return missing
		}
		i := *p
		if i < 0 {
			i = max(i, -n-1) + n
		}
		return min(max(i, low), high)
	}
	if step < 0 {
		return resolve(from, high), resolve(to, low)
	}
	return resolve(from, low), resolve(to, high)
}
