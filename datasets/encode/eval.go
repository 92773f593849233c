package encode

import (
	"errors"
	"fmt"
	"time"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// A rendering is the state of one run of a template: the variables, which gonja keeps, and what has been spent.
type rendering struct {
	ctx   *exec.Context
	spent *spending
}

// spending bounds one run and keeps its first error, with the line gonja's own message would lose.
type spending struct {
	steps, bytes, calls int
	date                time.Time
	usedDate            bool // the text depends on the date
	err                 error
}

var errTooMuch = errors.New("rendering takes more than the limit of steps or bytes")

// step charges n units of work.
func (r *rendering) step(n int) error {
	r.spent.steps += n
	if r.spent.steps > maxSteps {
		return errTooMuch
	}
	return nil
}

// grow charges a text of n bytes.
func (r *rendering) grow(n int) error {
	r.spent.bytes += n
	if r.spent.bytes > maxRenderedBytes {
		return errTooMuch
	}
	return r.step(1)
}

func atLine(line int, err error) error {
	var located *templateError
	if err == nil || errors.As(err, &located) || errors.Is(err, errRaised) {
		return err
	}
	return &templateError{Line: line, Text: err.Error()}
}

func (e *constExpr) eval(r *rendering) (any, error) { return e.value, r.step(1) }

func (e *nameExpr) eval(r *rendering) (any, error) {
	if err := r.step(1); err != nil {
		return nil, err
	}
	if e.name == "loop" {
		if v, ok := r.ctx.Get("loop"); ok {
			return v, nil
		}
	}
	if v, ok := r.ctx.Get(variable(e.name)); ok {
		return unwrap(v), nil
	}
	if fn, ok := globals[e.name]; ok {
		return function(func(args []any, named map[string]any) (any, error) {
			return fn(r, callArgs{args, named})
		}), nil
	}
	return undefined{e.name}, nil
}

func (e *listExpr) eval(r *rendering) (any, error) {
	out := make([]any, len(e.items))
	for i, item := range e.items {
		v, err := item.eval(r)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func (e *dictExpr) eval(r *rendering) (any, error) {
	d := newDict()
	for i := range e.keys {
		key, err := e.keys[i].eval(r)
		if err != nil {
			return nil, err
		}
		value, err := e.values[i].eval(r)
		if err != nil {
			return nil, err
		}
		s, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("mapping key is %s, want a string", kindOf(key))
		}
		d.set(s, value)
	}
	return d, nil
}

func (e *condExpr) eval(r *rendering) (any, error) {
	test, err := e.test.eval(r)
	if err != nil {
		return nil, err
	}
	if truth(test) {
		return e.then.eval(r)
	}
	if e.otherwise == nil {
		return undefined{"else"}, nil
	}
	return e.otherwise.eval(r)
}

func (e *notExpr) eval(r *rendering) (any, error) {
	v, err := e.x.eval(r)
	return !truth(v), err
}

func (e *negExpr) eval(r *rendering) (any, error) {
	v, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case int:
		return -v, nil
	case float64:
		return -v, nil
	}
	return nil, templateErrorf(e.line, "%s has no negative", kindOf(v))
}

func (e *boolExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil || truth(x) == e.or {
		return x, err
	}
	return e.y.eval(r)
}

func (e *binaryExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	y, err := e.y.eval(r)
	if err != nil {
		return nil, err
	}
	v, err := r.operate(e.op, x, y)
	return v, atLine(e.line, err)
}

func (e *compareExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	for i, op := range e.ops {
		y, err := e.ys[i].eval(r)
		if err != nil {
			return nil, err
		}
		ok, err := compareValues(op, x, y)
		if err != nil || !ok {
			return false, atLine(e.line, err)
		}
		x = y
	}
	return true, nil
}

func (e *callExpr) eval(r *rendering) (any, error) {
	fn, err := e.callee(r)
	if err != nil {
		return nil, err
	}
	args, err := e.args.eval(r)
	if err != nil {
		return nil, err
	}
	if r.spent.calls++; r.spent.calls > maxNesting {
		return nil, templateErrorf(e.line, "calls are nested more than %d deep", maxNesting)
	}
	defer func() { r.spent.calls-- }()
	v, err := fn(args)
	if err == nil {
		err = r.step(1)
	}
	return v, atLine(e.line, err)
}

// callee resolves what is called: a method of a value, or a function.
func (e *callExpr) callee(r *rendering) (func(callArgs) (any, error), error) {
	if attr, ok := e.fn.(*attrExpr); ok {
		x, err := attr.x.eval(r)
		if err != nil {
			return nil, err
		}
		method, ok := methods(x)[attr.name]
		if !ok {
			return nil, templateErrorf(attr.line, "%s has no method %q that is supported", kindOf(x), attr.name)
		}
		return func(args callArgs) (any, error) { return method(r, x, args) }, nil
	}
	v, err := e.fn.eval(r)
	if err != nil {
		return nil, err
	}
	fn, ok := v.(function)
	if !ok {
		return nil, templateErrorf(e.line, "%s can't be called", kindOf(v))
	}
	return func(args callArgs) (any, error) { return fn(args.positional, args.named) }, nil
}

func (e *filterExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	args, err := e.args.eval(r)
	if err != nil {
		return nil, err
	}
	if err := r.step(1); err != nil {
		return nil, err
	}
	v, err := e.fn(r, x, args)
	if err != nil {
		err = fmt.Errorf("filter %s: %w", e.name, err)
	}
	return v, atLine(e.line, err)
}

func (e *testExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	args, err := e.args.eval(r)
	if err != nil {
		return nil, err
	}
	ok, err := e.fn(x, args)
	return ok != e.negate, atLine(e.line, err)
}

func (a arguments) eval(r *rendering) (callArgs, error) {
	args := callArgs{named: map[string]any{}}
	for _, x := range a.positional {
		v, err := x.eval(r)
		if err != nil {
			return args, err
		}
		args.positional = append(args.positional, v)
	}
	for i, x := range a.named {
		v, err := x.eval(r)
		if err != nil {
			return args, err
		}
		args.named[a.names[i]] = v
	}
	return args, nil
}
