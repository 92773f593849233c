package tokenizer

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A decoder is one step from tokens back to text. It may change the slice it
// is given.
type decoder func([]string) []string

const decoders = "ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip or Sequence"

func parseDecoders(raw json.RawMessage) ([]decoder, error) {
	return parseParts("decoder", "decoders", raw, parseDecoder)
}

func parseDecoder(part, kind string, raw json.RawMessage) (decoder, error) {
	switch kind {
	case "ByteLevel":
		return decodeBytes, nil
	case "ByteFallback":
		return decodeHex, nil
	case "Fuse":
		return func(tokens []string) []string { return []string{strings.Join(tokens, "")} }, nil
	case "Metaspace":
		m, err := parseMetaspace(part, raw)
		return m.decode, err
	case "Replace":
		r, err := parseReplace(part, raw)
		return r.decode, err
	case "Strip":
		return parseStripDecoder(part, raw)
	}
	return nil, &UnsupportedError{part, kind, decoders}
}

// decodeBytes reads the byte alphabet back. A token with other characters in it
// stands for itself.
func decodeBytes(tokens []string) []string {
	var raw []byte
	for _, token := range tokens {
		var ok bool
		if raw, ok = unmapBytes(raw, token); !ok {
			raw = append(raw, token...)
		}
	}
	return []string{validUTF8(raw)}
}

// decodeHex reads runs of <0x…> tokens as bytes; those of a run that is not
// UTF-8 become a replacement character each.
func decodeHex(tokens []string) []string {
	var out []string
	var raw []byte
	flush := func() {
		if utf8.Valid(raw) {
			out = append(out, string(raw))
		} else {
			for range raw {
				out = append(out, "\uFFFD")
			}
		}
		raw = raw[:0]
	}
	for _, token := range tokens {
		if b, ok := hexByte(token); ok {
			raw = append(raw, b)
			continue
		}
		if len(raw) > 0 {
			flush()
		}
		out = append(out, token)
	}
	if len(raw) > 0 {
		flush()
	}
	return out
}

func hexByte(token string) (byte, bool) {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

func (r *replacement) decode(tokens []string) []string {
	for i, token := range tokens {
		// Only an expression that backtracks without bound can fail to match; such
		// a token is left as it is.
		if s, err := r.normalize(span{text: token}); err == nil {
			tokens[i] = s.text
		}
	}
	return tokens
}

func (m *metaspace) decode(tokens []string) []string {
	for i, token := range tokens {
		space := " "
		if i == 0 && m.scheme != "never" {
			space = ""
		}
		tokens[i] = strings.ReplaceAll(token, m.mark, space)
	}
	return tokens
}

func parseStripDecoder(part string, raw json.RawMessage) (decoder, error) {
	var c struct {
		Content     string
		Start, Stop uint32
	}
	if err := decode(part, raw, &c); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(c.Content) != 1 {
		return nil, malformed(part, "Strip has content %q, want one character", c.Content)
	}
	return func(tokens []string) []string {
		for i, token := range tokens {
			for n := c.Start; n > 0 && strings.HasPrefix(token, c.Content); n-- {
				token = token[len(c.Content):]
			}
			for n := c.Stop; n > 0 && strings.HasSuffix(token, c.Content); n-- {
				token = token[:len(token)-len(c.Content)]
			}
			tokens[i] = token
		}
		return tokens
	}, nil
}

// validUTF8 returns raw as a string with each sequence of bytes that begins a
// character but does not end it, and each other stray byte, replaced by one
// U+FFFD, as the Unicode standard recommends (section 3.9, "maximal subparts").
func validUTF8(raw []byte) string {
	if utf8.Valid(raw) {
		return string(raw)
	}
	var out strings.Builder
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		if r == utf8.RuneError && size == 1 {
			size = subpart(raw)
		}
		out.WriteRune(r)
		raw = raw[size:]
	}
	return out.String()
}

// subpart returns how many of the first bytes of raw begin a character that the
// next byte does not continue, at least 1.
func subpart(raw []byte) int {
	if len(raw) < 2 || raw[0] < 0xC2 || raw[0] > 0xF4 {
		return 1
	}
	low, high := byte(0x80), byte(0xBF)
	switch raw[0] {
	case 0xE0:
		low = 0xA0
	case 0xED:
		high = 0x9F
	case 0xF0:
		low = 0x90
	case 0xF4:
		high = 0x8F
	}
	if raw[1] < low || raw[1] > high {
		return 1
	}
	if raw[0] >= 0xF0 && len(raw) > 2 && raw[2]&0xC0 == 0x80 {
		return 3
	}
	return 2
}
