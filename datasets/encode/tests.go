package encode

import (
	"errors"
	"fmt"
)

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
