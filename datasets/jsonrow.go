package datasets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// parseJSONRow fills r from one JSON object. Only the columns in x are decoded.
// It is stricter than encoding/json, which takes the last of two equal keys and
// replaces half a surrogate pair: both would change a pair without a word.
func parseJSONRow(data []byte, x index, r *row) *RowError {
	*r = row{}
	if !json.Valid(data) {
		return malformed(data)
	}
	p := jsonParser{data: data}
	if c := p.peek(); c != '{' {
		return &RowError{Reason: Malformed, Detail: fmt.Sprintf("the row is %s, want an object", jsonKind(c))}
	}
	p.fields(func(key string) {
		role, wanted := x[key]
		if !wanted {
			r.note(key)
			p.skip()
			return
		}
		if r.cells[role].kind != absent {
			p.repeat(key)
		}
		r.cells[role] = p.value()
	})
	if p.repeated {
		return &RowError{Reason: Malformed, Detail: fmt.Sprintf("key %q occurs twice in one object", p.twice)}
	}
	return nil
}

// malformed describes what is wrong with data, which is not JSON.
func malformed(data []byte) *RowError {
	var raw json.RawMessage
	detail := "not JSON"
	if err := json.Unmarshal(data, &raw); err != nil {
		detail = "not JSON: " + err.Error()
		if syntax, ok := err.(*json.SyntaxError); ok {
			detail = fmt.Sprintf("not JSON at byte %d: %v", syntax.Offset, err)
		}
	}
	return &RowError{Reason: Malformed, Detail: detail}
}

// A jsonParser decodes a text that json.Valid has accepted, so that it need not
// check the grammar (nor the depth, which Valid limits).
type jsonParser struct {
	data     []byte
	pos      int
	lone     bool   // the last string held half a surrogate pair
	repeated bool   // a decoded object has two equal keys
	twice    string // the first of them
}

// peek skips white space and returns the byte behind it.
func (p *jsonParser) peek() byte {
	for isJSONSpace(p.data[p.pos]) {
		p.pos++
	}
	return p.data[p.pos]
}

func isJSONSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// repeat notes an object's second field named key.
func (p *jsonParser) repeat(key string) {
	if !p.repeated {
		p.repeated, p.twice = true, key
	}
}

// fields calls visit with each key of the object at pos; visit must consume the
// value.
func (p *jsonParser) fields(visit func(key string)) {
	p.pos++
	for p.peek() != '}' {
		if p.data[p.pos] == ',' {
			p.pos++
			p.peek()
		}
		key := p.text()
		p.peek()
		p.pos++ // colon
		p.peek()
		visit(key)
	}
	p.pos++
}

// value decodes the value at pos.
func (p *jsonParser) value() value {
	switch c := p.peek(); c {
	case '"':
		v := value{kind: text, str: p.text()}
		if p.lone {
			v = value{kind: invalid, str: v.str}
		}
		return v
	case '{':
		return p.object()
	case '[':
		return p.list()
	case 'n':
		p.pos += len("null")
		return value{kind: null}
	case 't':
		p.pos += len("true")
		return value{kind: boolean}
	case 'f':
		p.pos += len("false")
		return value{kind: boolean}
	default:
		start := p.pos
		p.skip()
		return value{kind: number, str: string(p.data[start:p.pos])}
	}
}

func (p *jsonParser) object() value {
	v := value{kind: object}
	p.fields(func(key string) {
		if v.field(key).kind != absent {
			p.repeat(key)
		}
		item := p.value()
		v.keys, v.items = append(v.keys, key), append(v.items, item)
	})
	return v
}

func (p *jsonParser) list() value {
	v := value{kind: list}
	p.pos++
	for p.peek() != ']' {
		if p.data[p.pos] == ',' {
			p.pos++
		}
		v.items = append(v.items, p.value())
	}
	p.pos++
	return v
}

// skip passes over the value at pos.
func (p *jsonParser) skip() {
	depth := 0
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; c {
		case '"':
			p.skipText()
		case '{', '[':
			depth++
			p.pos++
		case '}', ']':
			depth--
			p.pos++
		default:
			p.pos++
			if depth == 0 && p.pos < len(p.data) && !endsScalar(p.data[p.pos]) {
				continue
			}
		}
		if depth == 0 {
			return
		}
	}
}

// endsScalar reports whether a number or literal ends before c.
func endsScalar(c byte) bool { return c == ',' || c == '}' || c == ']' || isJSONSpace(c) }

// skipText passes over the string at pos and returns what is between its quotes.
func (p *jsonParser) skipText() []byte {
	p.pos++
	start := p.pos
	for p.data[p.pos] != '"' {
		if p.data[p.pos] == '\\' {
			p.pos++
		}
		p.pos++
	}
	p.pos++
	return p.data[start : p.pos-1]
}

// text decodes the string at pos and sets p.lone.
func (p *jsonParser) text() string {
	p.lone = false
	raw := p.skipText()
	at := bytes.IndexByte(raw, '\\')
	if at < 0 {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for at >= 0 {
		out = append(out, raw[:at]...)
		raw = raw[at:]
		if raw[1] == 'u' {
			out, raw = p.unicode(out, raw)
		} else {
			out, raw = append(out, unescape(raw[1])), raw[2:]
		}
		at = bytes.IndexByte(raw, '\\')
	}
	return string(append(out, raw...))
}

// unicode appends the character of the \u escape (or two) that raw starts with.
func (p *jsonParser) unicode(out, raw []byte) (dst, rest []byte) {
	r := hex4(raw[2:])
	raw = raw[6:]
	if utf16.IsSurrogate(r) {
		low := rune(-1)
		if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
			low = hex4(raw[2:])
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			p.lone = true
		} else {
			raw = raw[6:]
		}
	}
	return utf8.AppendRune(out, r), raw
}

// hex4 reads four hexadecimal digits.
func hex4(s []byte) rune {
	var r rune
	for _, c := range s[:4] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape returns the character of a one-letter escape.
func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c // " \ /
}

// jsonKind names the type of a JSON value by its first byte.
func jsonKind(c byte) string {
	switch c {
	case '"':
		return kindNames[text]
	case '[':
		return kindNames[list]
	case '{':
		return kindNames[object]
	case 'n':
		return kindNames[null]
	case 't', 'f':
		return kindNames[boolean]
	}
	return kindNames[number]
}
