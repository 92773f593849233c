package tokenizer

import (
	"bytes"
	"encoding/json"
)

// kindOf returns the type of a component of tokenizer.json, "" where the
// component is null or has none.
func kindOf(part string, raw json.RawMessage) (string, error) {
	var c struct {
		Type *string `json:"type"`
	}
	if absent(raw) {
		return "", nil
	}
	if err := decode(part, raw, &c); err != nil {
		return "", err
	}
	return value(c.Type), nil
}

// absent reports whether a component is missing or null.
func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// decode reads a component into v.
func decode(part string, raw json.RawMessage, v any) error {
	if absent(raw) {
		return malformed(part, "is missing")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return malformed(part, "%w", err)
	}
	return nil
}

// value returns what p points to, or zero where the file has null or nothing.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// valueOr is value with a default of its own.
func valueOr[T any](p *T, or T) T {
	if p == nil {
		return or
	}
	return *p
}

// maxNesting bounds sequences inside sequences.
const maxNesting = 16

// parseParts reads a component that may be a Sequence, whose members stand
// under list, and returns its members in order, sequences inside it spread out.
func parseParts[T any](part, list string, raw json.RawMessage, one func(part, kind string, raw json.RawMessage) (T, error)) ([]T, error) {
	return appendParts(nil, part, list, raw, one, 0)
}

func appendParts[T any](dst []T, part, list string, raw json.RawMessage, one func(part, kind string, raw json.RawMessage) (T, error), depth int) ([]T, error) {
	if absent(raw) {
		return dst, nil
	}
	if depth > maxNesting {
		return nil, malformed(part, "has more than %d sequences inside each other", maxNesting)
	}
	kind, err := kindOf(part, raw)
	if err != nil {
		return nil, err
	}
	if kind != "Sequence" {
		c, err := one(part, kind, raw)
		return append(dst, c), err
	}
	var members map[string]json.RawMessage
	var items []json.RawMessage
	if err := decode(part, raw, &members); err != nil {
		return nil, err
	}
	if err := decode(part+"."+list, members[list], &items); err != nil {
		return nil, err
	}
	for _, item := range items {
		if absent(item) {
			return nil, malformed(part+"."+list, "has a null member")
		}
		if dst, err = appendParts(dst, part, list, item, one, depth+1); err != nil {
			return nil, err
		}
	}
	return dst, nil
}
