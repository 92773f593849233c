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

// callArgs are the evaluated arguments of a call.
type callArgs struct {
	positional []any
	named      map[string]any
}

type (
	filterFunc func(r *rendering, v any, args callArgs) (any, error)
	testFunc   func(v any, args callArgs) (bool, error)
	globalFunc func(r *rendering, args callArgs) (any, error)
)

// bind lays the arguments out in the order of names; those not given are undefined.
func (a callArgs) bind(names ...string) ([]any, error) {
	if len(a.positional) > len(names) {
		return nil, fmt.Errorf("%d arguments, want at most %d", len(a.positional), len(names))
	}
	out := make([]any, len(names))
	for i := range out {
		out[i] = undefined{names[i]}
	}
	copy(out, a.positional)
	for name, v := range a.named {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("argument %q isn't supported", name)
		}
		out[i] = v
	}
	return out, nil
}

// strings binds optional string arguments; given says which were given and not none.
func (a callArgs) strings(names ...string) (values []string, given []bool, err error) {
	bound, err := a.bind(names...)
	if err != nil {
		return nil, nil, err
	}
	values, given = make([]string, len(names)), make([]bool, len(names))
	for i, v := range bound {
		switch v := v.(type) {
		case nil, undefined:
		case string:
			values[i], given[i] = v, true
		default:
			return nil, nil, fmt.Errorf("argument %q is %s, want a string", names[i], kindOf(v))
		}
	}
	return values, given, nil
}

// errRaised marks an error the template raised itself.
var errRaised = errors.New("raised by the chat template")

// globals are the functions Hugging Face gives a chat template, beside Jinja's own.
// They are filled in init because their bodies lead back to the evaluation that reads them.
var (
	globals map[string]globalFunc
	filters map[string]filterFunc
	tests   map[string]testFunc
)

func init() {
	globals = map[string]globalFunc{
		"raise_exception": raiseException, "strftime_now": strftimeNow,
		"namespace": newNamespace, "dict": dictOf, "range": rangeOf,
	}
	filters = map[string]filterFunc{
		"trim": trimFilter, "length": lengthFilter, "count": lengthFilter, "string": stringFilter, "safe": identityFilter,
		"upper": mapText(upper), "lower": mapText(lower), "capitalize": mapText(capitalize),
		"first": endFilter(0), "last": endFilter(-1), "list": listFilter, "reverse": reverseFilter, "items": itemsFilter,
		"join": joinFilter, "replace": replaceFilter, "default": defaultFilter, "d": defaultFilter, "int": intFilter,
		"tojson": tojsonFilter, "map": mapFilter, "indent": indentFilter,
		"select": selectFilter(true, false), "reject": selectFilter(false, false),
		"selectattr": selectFilter(true, true), "rejectattr": selectFilter(false, true),
	}
	tests = map[string]testFunc{
		"defined": is(func(v any) bool { _, u := v.(undefined); return !u }), "undefined": isType[undefined],
		"none": is(func(v any) bool { return v == nil }), "string": isType[string], "boolean": isType[bool],
		"integer": isType[int], "float": isType[float64], "mapping": isType[*dict],
		"number": is(func(v any) bool { _, ok := number(v); return ok }), "callable": isType[function],
		"true": is(func(v any) bool { return v == true }), "false": is(func(v any) bool { return v == false }),
		"iterable": is(isSequence), "sequence": is(isSequence),
		"odd": parity(1), "even": parity(0), "in": inTest, "divisibleby": divisibleTest,
	}
	for name, op := range map[string]string{
		"==": "==", "eq": "==", "equalto": "==", "ne": "!=", "lt": "<", "lessthan": "<", "le": "<=",
		"gt": ">", "greaterthan": ">", "ge": ">=",
	} {
		tests[name] = compareTest(op)
	}
}

func raiseException(_ *rendering, args callArgs) (any, error) {
	s, _, err := args.strings("message")
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("encode: %w: %s", errRaised, s[0])
}

func newNamespace(_ *rendering, args callArgs) (any, error) {
	if len(args.positional) > 0 {
		return nil, errors.New("namespace() with a positional argument isn't supported")
	}
	ns := &namespace{values: map[string]any{}}
	for k, v := range args.named {
		ns.values[k] = v
	}
	return ns, nil
}

func dictOf(_ *rendering, args callArgs) (any, error) {
	if len(args.positional) > 0 || len(args.named) > 1 {
		return nil, errors.New("dict() with these arguments isn't supported")
	}
	d := newDict()
	for k, v := range args.named {
		d.set(k, v)
	}
	return d, nil
}

func rangeOf(r *rendering, args callArgs) (any, error) {
	var n []int
	for _, v := range args.positional {
		i, ok := v.(int)
		if !ok {
			return nil, fmt.Errorf("range argument is %s, want an integer", kindOf(v))
		}
		n = append(n, i)
	}
	start, stop, step := 0, 0, 1
	switch {
	case len(args.named) > 0 || len(n) == 0 || len(n) > 3:
		return nil, errors.New("range wants 1 to 3 integers")
	case len(n) == 1:
		stop = n[0]
	default:
		start, stop = n[0], n[1]
		if len(n) == 3 {
			step = n[2]
		}
	}
	if step == 0 {
		return nil, errors.New("range step is 0")
	}
	out := []any{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if err := r.step(1); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

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

func is(fn func(any) bool) testFunc {
	return func(v any, args callArgs) (bool, error) {
		_, err := args.bind()
		return fn(v), err
	}
}

func isType[T any](v any, args callArgs) (bool, error) {
	_, ok := v.(T)
	_, err := args.bind()
	return ok, err
}

// isSequence holds for undefined too: Jinja2's Undefined iterates over nothing.
func isSequence(v any) bool {
	switch v.(type) {
	case string, []any, *dict, undefined:
		return true
	}
	return false
}

func parity(want int) testFunc {
	return func(v any, _ callArgs) (bool, error) {
		n, ok := v.(int)
		if !ok {
			return false, fmt.Errorf("%s is neither odd nor even", kindOf(v))
		}
		return n&1 == want, nil
	}
}

func inTest(v any, args callArgs) (bool, error) {
	bound, err := args.bind("seq")
	if err != nil {
		return false, err
	}
	return contains(bound[0], v)
}

func divisibleTest(v any, args callArgs) (bool, error) {
	bound, err := args.bind("num")
	if err != nil {
		return false, err
	}
	n, ok := v.(int)
	d, dok := bound[0].(int)
	if !ok || !dok || d == 0 {
		return false, errors.New("divisibleby wants integers")
	}
	return n%d == 0, nil
}

func compareTest(op string) testFunc {
	return func(v any, args callArgs) (bool, error) {
		bound, err := args.bind("other")
		if err != nil {
			return false, err
		}
		return compareValues(op, v, bound[0])
	}
}
