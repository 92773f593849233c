package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// missing stands for a token id that does not exist.
const missing int32 = -1

// A bpe is a byte-pair-encoding model: a piece of text becomes its characters
// (or bytes), and the pair of neighbours whose merge comes first in the list is
// joined until no merge applies (Sennrich et al., arXiv:1508.07909, Algorithm 1).
type bpe struct {
	vocabulary
	merges   map[pair]merge
	prefix   string // continuing_subword_prefix
	suffix   string // end_of_word_suffix
	unk      string
	fuseUnk  bool
	fallback bool             // byte_fallback
	whole    map[string]int32 // pieces that are one token at once: ignore_merges
	bytes    *[256]int32      // ids of single bytes, where pieces are raw bytes; else nil
	hex      [256]int32       // ids of "<0x00>" … "<0xFF>"
	cache    cache
}

type pair struct{ left, right int32 }

// merge is what becomes of a pair.
type merge struct{ rank, id int32 }

// A symbol is one token of a piece and how many bytes of it that token covers.
type symbol struct{ id, size int32 }

type bpeFile struct {
	Type         *string         `json:"type"`
	Dropout      *float64        `json:"dropout"`
	Unk          *string         `json:"unk_token"`
	Prefix       *string         `json:"continuing_subword_prefix"`
	Suffix       *string         `json:"end_of_word_suffix"`
	FuseUnk      *bool           `json:"fuse_unk"`
	ByteFallback *bool           `json:"byte_fallback"`
	IgnoreMerges *bool           `json:"ignore_merges"`
	Vocab        json.RawMessage `json:"vocab"`
	Merges       *mergeList      `json:"merges"`
}

// parseModel reads the model of a tokenizer.json.
func parseModel(raw json.RawMessage) (*bpe, error) {
	var f bpeFile
	if kind, err := kindOf("model", raw); err != nil {
		return nil, err
	} else if kind != "" && kind != "BPE" {
		return nil, &UnsupportedError{"model", kind, "BPE"}
	}
	if err := decode("model", raw, &f); err != nil {
		return nil, err
	}
	if f.Dropout != nil && *f.Dropout != 0 {
		return nil, &UnsupportedError{"model.dropout", fmt.Sprint(*f.Dropout), "none: ids would be random"}
	}
	if len(f.Vocab) == 0 || f.Merges == nil {
		return nil, malformed("model", "has no vocab or no merges, want both, as a BPE model has")
	}
	m := &bpe{
		prefix: value(f.Prefix), suffix: value(f.Suffix), unk: value(f.Unk),
		fuseUnk: value(f.FuseUnk), fallback: value(f.ByteFallback), cache: newCache(),
	}
	if err := m.vocabulary.UnmarshalJSON(f.Vocab); err != nil {
		return nil, err
	}
	if err := m.setMerges(*f.Merges); err != nil {
		return nil, err
	}
	for b := range m.hex {
		m.hex[b] = m.id(fmt.Sprintf("<0x%02X>", b))
	}
	if value(f.IgnoreMerges) {
		m.whole = m.ids
	}
	return m, nil
}

// id returns the id of a token, or missing.
func (m *bpe) id(token string) int32 {
	if id, ok := m.ids[token]; ok {
		return id
	}
	return missing
}

func (m *bpe) setMerges(list mergeList) error {
	m.merges = make(map[pair]merge, len(list))
	for rank, parts := range list {
		left, right := parts[0], parts[1]
		if len(right) < len(m.prefix) {
			return malformed("model.merges", "merge %d: %q is shorter than the prefix %q", rank, right, m.prefix)
		}
		p := pair{m.id(left), m.id(right)}
		joined := left + right[len(m.prefix):]
		id := m.id(joined)
		switch {
		case p.left == missing:
			return malformed("model.merges", "merge %d: %q is not in the vocabulary", rank, left)
		case p.right == missing:
			return malformed("model.merges", "merge %d: %q is not in the vocabulary", rank, right)
		case id == missing:
			return malformed("model.merges", "merge %d: %q and %q make %q, which is not in the vocabulary", rank, left, right, joined)
		}
		if first, ok := m.merges[p]; ok {
			return malformed("model.merges", "merge %d: %q and %q are merged already by merge %d", rank, left, right, first.rank)
		}
		m.merges[p] = merge{int32(rank), id}
	}
	return nil
}

// useBytes makes m take pieces of raw bytes instead of pieces written in the
// byte alphabet: the same ids for less work. It reports false and changes
// nothing where the two would differ.
func (m *bpe) useBytes() bool {
	if m.prefix != "" || m.suffix != "" {
		return false
	}
	var ids [256]int32
	for b := range ids {
		ids[b] = m.id(byteChar[b])
		if ids[b] == missing && inUTF8(byte(b)) && (m.unk != "" || m.fallback) {
			return false
		}
	}
	m.bytes = &ids
	if m.whole == nil {
		return true
	}
	m.whole = make(map[string]int32, len(m.ids))
	for token, id := range m.ids {
		if raw, ok := unmapBytes(nil, token); ok {
			m.whole[string(raw)] = id
		}
	}
	return true
}

// wordMark is what SentencePiece writes for a space.
const wordMark = "▁"

// startsWords reports whether no merge joins a word mark to what is before it,
// unless that is a word mark too. Words can then be merged one by one, with the
// same ids as all of the text at once; only so does the cache see words.
func (m *bpe) startsWords() bool {
	if m.bytes != nil || m.whole != nil || m.prefix != "" || m.suffix != "" || m.id(wordMark) == missing {
		return false
	}
	for _, to := range m.merges {
		token := m.tokens[to.id]
		if strings.Contains(strings.TrimLeft(token, wordMark), wordMark) {
			return false
		}
	}
	return true
}

// scanMarked returns the length of the word marks at the start of s and of what
// follows them up to the next.
func scanMarked(s string) int {
	word := len(s) - len(strings.TrimLeft(s, wordMark))
	if n := strings.Index(s[word:], wordMark); n >= 0 {
		return word + n
	}
	return len(s)
}

// inUTF8 reports whether b occurs in any valid UTF-8 text.
func inUTF8(b byte) bool { return b != 0xC0 && b != 0xC1 && b < 0xF5 }

// encode returns the tokens of one piece. The result belongs to the model or to
// sc and holds until the next call.
func (m *bpe) encode(piece string, sc *scratch) ([]symbol, error) {
	if id, ok := m.whole[piece]; ok {
		return append(sc.symbols[:0], symbol{id, int32(len(piece))}), nil
	}
	if known := m.cache.get(piece); known != nil {
		return known, nil
	}
	var err error
	sc.symbols, err = m.split(sc.symbols[:0], piece)
	if err != nil {
		return nil, err
	}
	sc.symbols = m.mergeAll(sc.symbols, sc)
	m.cache.put(piece, sc.symbols)
	return sc.symbols, nil
}

// split appends the symbols that piece is made of before any merge.
func (m *bpe) split(dst []symbol, piece string) ([]symbol, error) {
	if m.bytes != nil {
		return m.splitBytes(dst, piece), nil
	}
	unk := symbol{}  // unknown characters not yet written
	lost := int32(0) // bytes dropped before the first symbol
	for i := 0; i < len(piece); {
		_, size := utf8.DecodeRuneInString(piece[i:])
		char := m.affixed(piece, i, i+size)
		i += size
		if id, ok := m.ids[char]; ok {
			if unk.size > 0 {
				dst = append(dst, unk)
				unk = symbol{}
			}
			dst = append(dst, symbol{id, lost + int32(size)})
			lost = 0
			continue
		}
		if bytes, ok := m.appendHex(dst, char, size); ok {
			dst = bytes
			continue
		}
		if m.unk == "" {
			lost = drop(dst, lost, int32(size))
			continue
		}
		if unk.size > 0 && !m.fuseUnk {
			dst = append(dst, unk)
			unk = symbol{}
		}
		if unk.id = m.id(m.unk); unk.id == missing {
			return nil, fmt.Errorf("tokenizer: %q needs the unknown token %q, which is not in the vocabulary", char, m.unk)
		}
		unk.size += int32(size)
	}
	if unk.size > 0 {
		dst = append(dst, unk)
	}
	return dst, nil
}

func (m *bpe) splitBytes(dst []symbol, piece string) []symbol {
	lost := int32(0)
	for i := range len(piece) {
		id := m.bytes[piece[i]]
		if id == missing {
			lost = drop(dst, lost, 1)
			continue
		}
		dst = append(dst, symbol{id, lost + 1})
		lost = 0
	}
	return dst
}

// drop leaves out size bytes that no token stands for, as the reference does
// without an unknown token. The symbol before them covers them, or else the one
// to come, to which the result is to be added.
func drop(dst []symbol, lost, size int32) int32 {
	if len(dst) == 0 {
		return lost + size
	}
	dst[len(dst)-1].size += size
	return lost
}

// affixed returns the character piece[i:j] as the vocabulary writes it.
func (m *bpe) affixed(piece string, i, j int) string {
	char := piece[i:j]
	if i > 0 && m.prefix != "" {
		char = m.prefix + char
	}
	if j == len(piece) && m.suffix != "" {
		char += m.suffix
	}
	return char
}

// appendHex appends the tokens <0x…> of a character of size bytes if
// byte_fallback is on and all of them exist. Bytes of an affix cover nothing.
func (m *bpe) appendHex(dst []symbol, char string, size int) ([]symbol, bool) {
	if !m.fallback {
		return dst, false
	}
	n := len(dst)
	for i := range len(char) {
		id := m.hex[char[i]]
		if id == missing {
			return dst[:n], false
		}
		covered := int32(0)
		if i < size {
			covered = 1
		}
		dst = append(dst, symbol{id, covered})
	}
	return dst, true
}
