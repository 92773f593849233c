package encode

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

func (r *rendering) operate(op string, x, y any) (any, error) {
	if op == "~" {
		a, err := text(x)
		if err != nil {
			return nil, err
		}
		b, err := text(y)
		if err != nil {
			return nil, err
		}
		return a + b, r.grow(len(a) + len(b))
	}
	a, aok := x.(string)
	b, bok := y.(string)
	if op == "+" && aok && bok {
		return a + b, r.grow(len(a) + len(b))
	}
	if l, ok := x.([]any); ok && op == "+" {
		if m, ok := y.([]any); ok {
			return append(l[:len(l):len(l)], m...), r.step(len(l) + len(m))
		}
	}
	if n, ok := y.(int); aok && ok && op == "*" && n >= 0 && len(a)*n <= maxRenderedBytes {
		return strings.Repeat(a, n), r.grow(len(a) * n)
	}
	if i, ok := x.(int); ok {
		if j, ok := y.(int); ok && op != "/" {
			return integers(op, i, j)
		}
	}
	return nil, fmt.Errorf("operator %s between %s and %s isn't supported", op, kindOf(x), kindOf(y))
}

// integers is Python's integer arithmetic within 64 bits, // and % rounding down.
func integers(op string, i, j int) (any, error) {
	switch op {
	case "+", "-", "*":
		f := map[string]float64{"+": float64(i) + float64(j), "-": float64(i) - float64(j), "*": float64(i) * float64(j)}[op]
		if math.Abs(f) > 1<<62 {
			return nil, errors.New("integer is out of range")
		}
		return map[string]int{"+": i + j, "-": i - j, "*": i * j}[op], nil
	}
	if j == 0 {
		return nil, errors.New("division by zero")
	}
	quotient, rest := i/j, i%j
	if rest != 0 && (rest < 0) != (j < 0) {
		quotient, rest = quotient-1, rest+j
	}
	if op == "//" {
		return quotient, nil
	}
	return rest, nil
}

func compareValues(op string, x, y any) (bool, error) {
	switch op {
	case "==":
		return equal(x, y), nil
	case "!=":
		return !equal(x, y), nil
	case "in":
		return contains(y, x)
	case "not in":
		ok, err := contains(y, x)
		return !ok, err
	case "<":
		return less(x, y)
	case ">":
		return less(y, x)
	}
	ok, err := less(x, y)
	if op == ">=" {
		return !ok, err
	}
	return ok || equal(x, y), err
}
