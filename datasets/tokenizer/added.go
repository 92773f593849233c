package tokenizer

import (
	"encoding/json"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An addedToken is one of tokenizer.json's added_tokens: text that is cut out
// before the model sees anything.
type addedToken struct {
	ID         *int64 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no word character touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space after it
	Normalized bool   `json:"normalized"`  // looked for in normalized text
	Special    bool   `json:"special"`     // left out when decoding without specials

	id      int32
	decoded string // what decoders see
}

// addedTokens holds the added tokens of a tokenizer.
type addedTokens struct {
	byID           map[int32]*addedToken
	byContent      map[string]*addedToken
	special        map[string]bool // texts left out when decoding without specials
	raw, afterNorm trie
}

func parseAdded(raw json.RawMessage, m *bpe, norms []normalizer) (*addedTokens, error) {
	var list []*addedToken
	if !absent(raw) {
		if err := decode("added_tokens", raw, &list); err != nil {
			return nil, err
		}
	}
	a := &addedTokens{byID: map[int32]*addedToken{}, byContent: map[string]*addedToken{}, special: map[string]bool{}}
	for i, t := range list {
		if t == nil || t.Content == "" {
			return nil, malformed("added_tokens", "token %d has no content", i)
		}
		if err := a.add(t, m, norms); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *addedTokens) add(t *addedToken, m *bpe, norms []normalizer) error {
	if t.ID == nil || *t.ID < 0 || *t.ID > math.MaxInt32 {
		return malformed("added_tokens", "token %q has no id in [0, %d]", t.Content, math.MaxInt32)
	}
	t.id = int32(*t.ID)
	if other, ok := a.byID[t.id]; ok && other.Content != t.Content {
		return malformed("added_tokens", "tokens %q and %q have the same id %d", other.Content, t.Content, t.id)
	}
	if other, ok := a.byContent[t.Content]; ok && other.id != t.id {
		return malformed("added_tokens", "token %q has ids %d and %d", t.Content, other.id, t.id)
	}
	if token, ok := m.tokens[t.id]; ok && token != t.Content {
		return malformed("added_tokens", "token %q has id %d, which is %q in the vocabulary", t.Content, t.id, token)
	}
	if id := m.id(t.Content); id != missing && id != t.id {
		return malformed("added_tokens", "token %q has id %d, but %d in the vocabulary", t.Content, t.id, id)
	}
	t.decoded = t.Content
	into := &a.raw
	if t.Normalized {
		s, err := normalize(span{text: t.Content}, norms)
		if err != nil {
			return err
		}
		if s.text == "" {
			return malformed("added_tokens", "token %q is nothing once normalized", t.Content)
		}
		t.decoded, into = s.text, &a.afterNorm
	}
	a.byID[t.id], a.byContent[t.Content] = t, t
	if t.Special {
		a.special[t.Content] = true
	}
	into.insert(t.decoded, t)
	return nil
}

// A segment is a span of text, or an added token that stands there.
type segment struct {
	span
	token *addedToken
}

// extract cuts the tokens of t out of s and appends what is there in order.
func (t *trie) extract(dst []segment, s span) []segment {
	if t.root.next == nil {
		return append(dst, segment{span: s})
	}
	done := 0
	for i := 0; i < len(s.text); {
		token, n := t.longest(s.text[i:])
		if n == 0 {
			i++
			continue
		}
		start, end := i, i+n
		i = end
		if token.SingleWord && !alone(s.text, start, end) {
			continue
		}
		if token.LStrip {
			start = max(done, len(strings.TrimRightFunc(s.text[:start], unicode.IsSpace)))
		}
		if token.RStrip {
			end = len(s.text) - len(strings.TrimLeftFunc(s.text[end:], unicode.IsSpace))
		}
		if done < start {
			dst = append(dst, segment{span: s.slice(done, start)})
		}
		dst = append(dst, segment{s.slice(start, end), token})
		done = end
	}
	if done < len(s.text) {
		dst = append(dst, segment{span: s.slice(done, len(s.text))})
	}
	return dst
}

// alone reports whether no word character touches text[i:j].
func alone(text string, i, j int) bool {
	before, n := utf8.DecodeLastRuneInString(text[:i])
	after, m := utf8.DecodeRuneInString(text[j:])
	return (n == 0 || !isWord(before)) && (m == 0 || !isWord(after))
}

// A trie finds the longest added token at a place.
type trie struct{ root node }

type node struct {
	next  map[byte]*node
	token *addedToken
}

func (t *trie) insert(text string, token *addedToken) {
	n := &t.root
	for i := range len(text) {
		if n.next == nil {
			n.next = map[byte]*node{}
		}
		child := n.next[text[i]]
		if child == nil {
			child = &node{}
			n.next[text[i]] = child
		}
		n = child
	}
	n.token = token
}

// longest returns the longest token at the start of text and its length, or 0.
func (t *trie) longest(text string) (token *addedToken, length int) {
	n := &t.root
	for i := range len(text) {
		if n = n.next[text[i]]; n == nil {
			break
		}
		if n.token != nil {
			token, length = n.token, i+1
		}
	}
	return token, length
}
