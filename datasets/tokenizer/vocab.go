package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// vocabulary is the JSON object token → id. Reading it refuses two tokens of
// one name or one id, which encoding/json's maps would let pass.
type vocabulary struct {
	ids    map[string]int32
	tokens map[int32]string
}

func (v *vocabulary) UnmarshalJSON(data []byte) error {
	n := bytes.Count(data, []byte{':'})
	v.ids, v.tokens = make(map[string]int32, n), make(map[int32]string, n)
	if len(data) == 0 || data[0] != '{' {
		return malformed("model.vocab", "is %.20q, want an object", data)
	}
	rest := bytes.TrimLeft(data[1:], jsonSpace)
	for len(rest) > 0 && rest[0] != '}' {
		token, after, err := jsonString(rest)
		if err != nil {
			return err
		}
		after = bytes.TrimLeft(after, jsonSpace+":")
		end := bytes.IndexAny(after, ",}"+jsonSpace)
		if end < 0 {
			end = len(after)
		}
		if err := v.add(token, string(after[:end])); err != nil {
			return err
		}
		rest = bytes.TrimLeft(after[end:], jsonSpace+",")
	}
	return nil
}

func (v *vocabulary) add(token, number string) error {
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil || id < 0 || id > math.MaxInt32 {
		return malformed("model.vocab", "token %q has id %.20s, want an integer in [0, %d]", token, number, math.MaxInt32)
	}
	if _, ok := v.ids[token]; ok {
		return malformed("model.vocab", "token %q is there twice", token)
	}
	if other, ok := v.tokens[int32(id)]; ok {
		return malformed("model.vocab", "tokens %q and %q have the same id %d", other, token, id)
	}
	v.ids[token], v.tokens[int32(id)] = int32(id), token
	return nil
}

const jsonSpace = " \t\r\n"

// jsonString reads the string at the start of valid JSON and returns what is
// after it.
func jsonString(data []byte) (string, []byte, error) {
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			var s string
			raw := data[:i+1]
			if !bytes.ContainsRune(raw, '\\') {
				return string(raw[1:i]), data[i+1:], nil
			}
			err := json.Unmarshal(raw, &s)
			return s, data[i+1:], err
		}
	}
	return "", nil, fmt.Errorf("tokenizer: string %.20q has no end", data)
}

// mergeList is the list of merges, the first one first: strings "a b" in older
// files, pairs ["a", "b"] in newer ones.
type mergeList [][2]string

func (m *mergeList) UnmarshalJSON(data []byte) error {
	var pairs [][]string
	if json.Unmarshal(data, &pairs) == nil {
		return m.fromPairs(pairs)
	}
	var lines []string
	if err := json.Unmarshal(data, &lines); err != nil {
		return malformed("model.merges", "want all strings \"a b\" or all pairs [\"a\", \"b\"]: %w", err)
	}
	*m = make(mergeList, 0, len(lines))
	for i, line := range lines {
		if strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(right, " ") {
			return malformed("model.merges", "merge %d is %q, want two parts with one space between", i, line)
		}
		*m = append(*m, [2]string{left, right})
	}
	return nil
}

func (m *mergeList) fromPairs(pairs [][]string) error {
	*m = make(mergeList, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return malformed("model.merges", "merge %d has %d parts, want 2", i, len(p))
		}
		(*m)[i] = [2]string{p[0], p[1]}
	}
	return nil
}
