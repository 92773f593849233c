package encode

import (
	"errors"
	"fmt"
	"slices"
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
