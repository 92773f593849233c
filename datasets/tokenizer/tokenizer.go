package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Tokenizer turns text into token ids and back. All its methods may be
// called from several goroutines at once.
type Tokenizer struct {
	added         *addedTokens
	normalizers   []normalizer
	pretokenizers []pretokenizer
	model         *bpe
	around        surroundings
	decoders      []decoder
	digest        string
	pool          sync.Pool // of *scratch
}

// scratch is the memory of one call, kept for the next.
type scratch struct {
	segments, cutOut []segment
	pieces, spare    []span
	cuts             []cut
	symbols          []symbol
	links            []link
	queue            queue
}

// file is tokenizer.json.
type file struct {
	Version       *string         `json:"version"`
	AddedTokens   json.RawMessage `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// Load reads a tokenizer.json. Its errors are those of the file system and of
// [Parse].
func Load(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Parse reads the bytes of a tokenizer.json. It returns an [*UnsupportedError]
// where the file asks for something this package does not do, and an error that
// names the place where the file is malformed.
func Parse(data []byte) (*Tokenizer, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("tokenizer: not a tokenizer.json: %w", err)
	}
	if v := valueOr(f.Version, "1.0"); v != "1.0" {
		return nil, &UnsupportedError{"version", v, "1.0"}
	}
	sum := sha256.Sum256(data)
	t := &Tokenizer{digest: hex.EncodeToString(sum[:])}
	t.pool.New = func() any { return new(scratch) }
	if err := t.parse(f); err != nil {
		return nil, err
	}
	if err := t.checkAround(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tokenizer) parse(f file) (err error) {
	if t.model, err = parseModel(f.Model); err != nil {
		return err
	}
	if t.normalizers, err = parseNormalizers(f.Normalizer); err != nil {
		return err
	}
	if t.added, err = parseAdded(f.AddedTokens, t.model, t.normalizers); err != nil {
		return err
	}
	if t.pretokenizers, err = parsePretokenizers(f.PreTokenizer); err != nil {
		return err
	}
	if n := len(t.pretokenizers); n > 0 {
		// The byte alphabet need not be written out when the model is next.
		if last, ok := t.pretokenizers[n-1].(*byteLevel); ok && t.byteLevels() == 1 {
			last.raw = t.model.useBytes()
		}
	}
	if t.model.startsWords() {
		t.pretokenizers = append(t.pretokenizers, splitter{scanner(scanMarked), isolated, false})
	}
	if t.around, err = parsePostprocessors(f.PostProcessor); err != nil {
		return err
	}
	t.decoders, err = parseDecoders(f.Decoder)
	return err
}

func (t *Tokenizer) byteLevels() (n int) {
	for _, p := range t.pretokenizers {
		if _, ok := p.(*byteLevel); ok {
			n++
		}
	}
	return n
}

// checkAround makes sure that the post-processor adds tokens that exist.
func (t *Tokenizer) checkAround() error {
	for _, id := range slices.Concat(t.around.before, t.around.after) {
		if _, ok := t.Token(id); !ok {
			return malformed("post_processor", "adds token %d, which does not exist", id)
		}
	}
	return nil
}

// Encode returns the token ids of text. Added tokens written out in the text
// become their ids; nothing is put around it, see [Tokenizer.Added]. Text that
// is not UTF-8 is an error.
func (t *Tokenizer) Encode(text string) ([]int32, error) {
	ids := make([]int32, 0, len(text)/3+4)
	err := t.encode(text, func(id int32, _ span, _, _ int) { ids = append(ids, id) })
	return ids, err
}

// EncodeOffsets returns the token ids of text as [Tokenizer.Encode] does and,
// for each, the first byte of text it stands for and the byte after the last.
// A token inside a character has its own bytes of it where the model works on
// bytes, else the whole character. White space that an added token takes with
// it is its own. The range is empty for what was added, such as the ▁ in front.
func (t *Tokenizer) EncodeOffsets(text string) (ids []int32, offsets [][2]int, err error) {
	err = t.encode(text, func(id int32, s span, i, j int) {
		ids = append(ids, id)
		switch {
		case i < j:
			offsets = append(offsets, s.origin(i, j))
		case i < len(s.text):
			at := s.origin(i, i+1)[0]
			offsets = append(offsets, [2]int{at, at})
		default:
			at := s.origin(i-1, i)[1]
			offsets = append(offsets, [2]int{at, at})
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return ids, offsets, nil
}

// encode calls emit for each token of text: the bytes i to j of s.
func (t *Tokenizer) encode(text string, emit func(id int32, s span, i, j int)) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("tokenizer: text is not UTF-8 at byte %d", invalidAt(text))
	}
	if len(text) > math.MaxInt32/4 {
		return fmt.Errorf("tokenizer: text has %d bytes, want at most %d", len(text), math.MaxInt32/4)
	}
	sc := t.pool.Get().(*scratch)
	defer t.pool.Put(sc)
	if err := t.segment(text, sc); err != nil {
		return err
	}
	for _, seg := range sc.segments {
		if seg.token != nil {
			emit(seg.token.id, seg.span, 0, len(seg.text))
			continue
		}
		pieces, err := pretokenize(seg.span, t.pretokenizers, sc)
		if err != nil {
			return err
		}
		for _, piece := range pieces {
			symbols, err := t.model.encode(piece.text, sc)
			if err != nil {
				return err
			}
			at := 0
			for _, s := range symbols {
				emit(s.id, piece, at, min(at+int(s.size), len(piece.text)))
				at += int(s.size)
			}
		}
	}
	return nil
}

// segment cuts the added tokens out of text and normalizes the rest, into
// sc.segments.
func (t *Tokenizer) segment(text string, sc *scratch) error {
	sc.segments = sc.segments[:0]
	sc.cutOut = t.added.raw.extract(sc.cutOut[:0], span{text: text})
	for _, seg := range sc.cutOut {
		if seg.token != nil {
			sc.segments = append(sc.segments, seg)
			continue
		}
		s, err := normalize(seg.span, t.normalizers)
		if err != nil {
			return err
		}
		if s.text != "" {
			sc.segments = t.added.afterNorm.extract(sc.segments, s)
		}
	}
	return nil
}

func invalidAt(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return i
			}
		}
	}
	return len(text)
}

// Decode returns the text of ids. With skipSpecial it leaves out special tokens.
// Ids that do not exist are left out; bytes that make no character become
// U+FFFD. Of a tokenizer without a decoder, tokens are joined by spaces.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		token, ok := t.model.tokens[id]
		if a := t.added.byID[id]; a != nil {
			token, ok = a.decoded, true
		}
		if ok && !(skipSpecial && t.added.special[token]) {
			tokens = append(tokens, token)
		}
	}
	if len(t.decoders) == 0 {
		return strings.Join(tokens, " ")
	}
	for _, d := range t.decoders {
		tokens = d(tokens)
	}
	return strings.Join(tokens, "")
}

// Added returns the ids that the post-processor puts before and after a
// sequence, such as a token that begins a text. Either may be empty.
func (t *Tokenizer) Added() (prefix, suffix []int32) {
	return slices.Clone(t.around.before), slices.Clone(t.around.after)
}

// TokenID returns the id of a token, written as in the vocabulary (" a" is "Ġa"
// in byte-level ones), and whether it exists.
func (t *Tokenizer) TokenID(token string) (int32, bool) {
	if a := t.added.byContent[token]; a != nil {
		return a.id, true
	}
	id, ok := t.model.ids[token]
	return id, ok
}

// Token returns the token with an id as the vocabulary writes it, and whether
// there is one.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if a := t.added.byID[id]; a != nil {
		return a.Content, true
	}
	token, ok := t.model.tokens[id]
	return token, ok
}

// SHA256 returns the SHA-256 of the bytes of tokenizer.json in hexadecimal.
func (t *Tokenizer) SHA256() string { return t.digest }
