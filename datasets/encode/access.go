package encode

import (
	"fmt"

	"github.com/nikolalohinski/gonja/v2/exec"
)

func (e *attrExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	if _, ok := methods(x)[e.name]; ok {
		return nil, templateErrorf(e.line, "method %q isn't called: that isn't supported", e.name)
	}
	v, err := attribute(x, e.name)
	return v, atLine(e.line, err)
}

// attribute is x.name where name is no method of x.
func attribute(x any, name string) (any, error) {
	switch x := x.(type) {
	case undefined:
		return nil, fmt.Errorf("%q is undefined and has no attribute %q", x.what, name)
	case *dict:
		if v, ok := x.values[name]; ok {
			return v, nil
		}
	case *namespace:
		if v, ok := x.values[name]; ok {
			return v, nil
		}
	case exec.AttributeGetter:
		return loopAttribute(x, name)
	}
	return undefined{name}, nil
}

var loopAttributes = map[string]bool{
	"index": true, "index0": true, "revindex": true, "revindex0": true, "first": true, "last": true,
	"length": true, "depth": true, "depth0": true, "previtem": true, "nextitem": true,
}

// loopAttribute reads gonja's loop variable; its neighbours past the ends are undefined, not none.
func loopAttribute(loop exec.AttributeGetter, name string) (any, error) {
	v, ok := loop.GetAttribute(name)
	if !ok || !loopAttributes[name] {
		return nil, fmt.Errorf("loop.%s isn't supported", name)
	}
	if v.IsNil() {
		return undefined{"loop." + name}, nil
	}
	return unwrap(v), nil
}

func (e *itemExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	key, err := e.key.eval(r)
	if err != nil {
		return nil, err
	}
	v, err := item(x, key)
	return v, atLine(e.line, err)
}

func item(x, key any) (any, error) {
	if name, ok := key.(string); ok {
		if _, ok := methods(x)[name]; ok {
			if d, isDict := x.(*dict); !isDict || d.values[name] == nil {
				return nil, fmt.Errorf("method %q isn't called: that isn't supported", name)
			}
		}
		return attribute(x, name)
	}
	i, ok := key.(int)
	if !ok {
		return nil, fmt.Errorf("subscript is %s, want a string or an integer", kindOf(key))
	}
	switch x.(type) {
	case undefined, *dict, *namespace, exec.AttributeGetter:
		return attribute(x, fmt.Sprint(i))
	case string, []any:
		items, _ := iterate(x)
		if i < 0 {
			i += len(items)
		}
		if i >= 0 && i < len(items) {
			return items[i], nil
		}
	}
	return undefined{fmt.Sprint(key)}, nil
}

func (e *sliceExpr) eval(r *rendering) (any, error) {
	x, err := e.x.eval(r)
	if err != nil {
		return nil, err
	}
	var at [3]*int
	for i, part := range []expr{e.from, e.to, e.step} {
		if part == nil {
			continue
		}
		v, err := part.eval(r)
		if err != nil {
			return nil, err
		}
		n, ok := v.(int)
		if !ok && v != nil {
			return nil, templateErrorf(e.line, "slice bound is %s, want an integer", kindOf(v))
		}
		if ok {
			at[i] = &n
		}
	}
	v, err := slice(x, at[0], at[1], at[2])
	return v, atLine(e.line, err)
}
