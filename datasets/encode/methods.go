package encode

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
)

type methodFunc func(r *rendering, v any, args callArgs) (any, error)

var stringMethods = map[string]methodFunc{
	"strip": stripMethod(strings.TrimFunc), "lstrip": stripMethod(strings.TrimLeftFunc), "rstrip": stripMethod(strings.TrimRightFunc),
	"split": splitMethod, "replace": replaceMethod, "join": joinMethod, "find": findMethod,
	"startswith": affixMethod(strings.HasPrefix), "endswith": affixMethod(strings.HasSuffix),
	"removeprefix": cutMethod(strings.TrimPrefix), "removesuffix": cutMethod(strings.TrimSuffix),
	"upper": caseMethod(upper), "lower": caseMethod(lower), "capitalize": caseMethod(capitalize), "title": caseMethod(title),
}

var dictMethods = map[string]methodFunc{
	"get":    getMethod,
	"items":  func(_ *rendering, v any, _ callArgs) (any, error) { return v.(*dict).items(), nil },
	"keys":   func(_ *rendering, v any, _ callArgs) (any, error) { return v.(*dict).list(), nil },
	"values": valuesMethod,
}

// methods lists what v can be asked to do.
func methods(v any) map[string]methodFunc {
	switch v.(type) {
	case string:
		return stringMethods
	case *dict:
		return dictMethods
	}
	return nil
}

// stripMethod is Python's strip and its one-sided forms: of white space, or of the characters given.
func stripMethod(strip func(string, func(rune) bool) string) methodFunc {
	return func(_ *rendering, v any, args callArgs) (any, error) {
		s, given, err := args.strings("chars")
		if err != nil {
			return nil, err
		}
		if given[0] {
			return strip(v.(string), func(r rune) bool { return strings.ContainsRune(s[0], r) }), nil
		}
		return strip(v.(string), isSpace), nil
	}
}

func splitMethod(r *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("sep", "maxsplit")
	if err != nil {
		return nil, err
	}
	limit, ok := bound[1].(int)
	if _, missing := bound[1].(undefined); missing || limit < 0 && ok {
		limit, ok = math.MaxInt-1, true
	}
	s := v.(string)
	if err := r.grow(len(s)); err != nil {
		return nil, err
	}
	var parts []string
	switch sep := bound[0].(type) {
	case string:
		if sep == "" || !ok {
			return nil, errors.New("split wants a separator that isn't empty")
		}
		parts = strings.SplitN(s, sep, min(limit, len(s))+1)
	case nil, undefined:
		if limit != math.MaxInt-1 {
			return nil, errors.New("split at white space with a limit isn't supported")
		}
		parts = strings.FieldsFunc(s, isSpace)
	default:
		return nil, fmt.Errorf("split separator is %s, want a string", kindOf(sep))
	}
	out := make([]any, len(parts))
	for i, part := range parts {
		out[i] = part
	}
	return out, nil
}

func replaceMethod(r *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("old", "new", "count")
	if err != nil {
		return nil, err
	}
	from, ok1 := bound[0].(string)
	to, ok2 := bound[1].(string)
	n, ok3 := bound[2].(int)
	if _, missing := bound[2].(undefined); missing || bound[2] == nil {
		n, ok3 = -1, true
	}
	if !ok1 || !ok2 || !ok3 {
		return nil, errors.New("replace wants two strings and a count")
	}
	s := v.(string)
	// bound the result before it is made
	if err := r.grow(len(s) + strings.Count(s, from)*len(to)); err != nil {
		return nil, err
	}
	return strings.Replace(s, from, to, n), nil
}

func joinMethod(r *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("iterable")
	if err != nil {
		return nil, err
	}
	items, err := iterate(bound[0])
	if err != nil {
		return nil, err
	}
	out, n, err := concat(items, v.(string))
	if err != nil {
		return nil, err
	}
	return out, r.grow(n)
}

// findMethod is str.find: an index in code points.
func findMethod(_ *rendering, v any, args callArgs) (any, error) {
	s, given, err := args.strings("sub")
	if err != nil {
		return nil, err
	}
	if !given[0] {
		return nil, errors.New("find wants a string")
	}
	i := strings.Index(v.(string), s[0])
	if i < 0 {
		return -1, nil
	}
	return length(v.(string)[:i])
}

func affixMethod(has func(s, affix string) bool) methodFunc {
	return func(_ *rendering, v any, args callArgs) (any, error) {
		bound, err := args.bind("affix")
		if err != nil {
			return nil, err
		}
		affixes := []any{bound[0]}
		if list, ok := bound[0].([]any); ok {
			affixes = list
		}
		for _, affix := range affixes {
			s, ok := affix.(string)
			if !ok {
				return nil, fmt.Errorf("argument is %s, want a string", kindOf(affix))
			}
			if has(v.(string), s) {
				return true, nil
			}
		}
		return false, nil
	}
}

func cutMethod(cut func(s, affix string) string) methodFunc {
	return func(_ *rendering, v any, args callArgs) (any, error) {
		s, given, err := args.strings("affix")
		if err != nil {
			return nil, err
		}
		if !given[0] {
			return nil, errors.New("wants a string")
		}
		return cut(v.(string), s[0]), nil
	}
}

func caseMethod(fn func(string) string) methodFunc {
	return func(r *rendering, v any, args callArgs) (any, error) {
		if _, err := args.bind(); err != nil {
			return nil, err
		}
		return fn(v.(string)), r.grow(len(v.(string)))
	}
}

// title is str.title: a letter behind anything but a letter is upper case, every other lower case.
func title(s string) string {
	inWord := false
	return strings.Map(func(r rune) rune {
		letter := unicode.IsLetter(r)
		switch {
		case letter && inWord:
			r = unicode.ToLower(r)
		case letter:
			r = unicode.ToTitle(r)
		}
		inWord = letter
		return r
	}, s)
}

func getMethod(_ *rendering, v any, args callArgs) (any, error) {
	bound, err := args.bind("key", "default")
	if err != nil {
		return nil, err
	}
	key, ok := bound[0].(string)
	if value, found := v.(*dict).values[key]; ok && found {
		return value, nil
	}
	if _, missing := bound[1].(undefined); missing {
		return nil, nil
	}
	return bound[1], nil
}

func valuesMethod(_ *rendering, v any, _ callArgs) (any, error) {
	d := v.(*dict)
	out := make([]any, len(d.keys))
	for i, key := range d.keys {
		out[i] = d.values[key]
	}
	return out, nil
}
