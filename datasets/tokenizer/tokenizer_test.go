package tokenizer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// document returns a tokenizer.json with the given model and other members.
func document(model, members string) []byte {
	return fmt.Appendf(nil, `{"version":"1.0"%s,"model":%s}`, members, model)
}

func mustParse(t testing.TB, data []byte) *Tokenizer {
	t.Helper()
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

const (
	hugModel = `{"type":"BPE","vocab":{"h":0,"u":1,"g":2,"s":3,"hu":4,"ug":5,"hug":6,"gs":7},"merges":["u g","h u","h ug","g s"]}`
	markMode = `{"type":"BPE","unk_token":"?","vocab":{"?":0,"<s>":1,"▁":2,"a":3,"b":4,"▁a":5,"ab":6},"merges":[["▁","a"],["a","b"]]}`
)

// TestMerges holds ids worked out by hand from the list of merges.
func TestMerges(t *testing.T) {
	t.Parallel()
	tok := mustParse(t, document(hugModel, ""))
	for _, c := range []struct {
		text string
		want []int32
	}{
		{"", []int32{}},
		{"h", []int32{0}},
		{"hu", []int32{4}},            // h u → hu
		{"hug", []int32{6}},           // u g is first, then h ug
		{"hugs", []int32{6, 3}},       // u g before g s
		{"gs", []int32{7}},            // nothing before it takes the g
		{"ugug", []int32{5, 5}},       // from left to right
		{"hhugu", []int32{0, 6, 1}},   // h h·ug u
		{"huu", []int32{4, 1}},        // h u, then no merge of hu u
		{"xhxug", []int32{6}},         // x is dropped, having no token, and its neighbours meet
		{"sssh", []int32{3, 3, 3, 0}}, // no merge at all
	} {
		checkIDs(t, tok, c.text, c.want)
	}
}

func TestOffsets(t *testing.T) {
	t.Parallel()
	bytes := componentTokenizer(t, "ByteLevel without a space in front, with regex")
	llama := componentTokenizer(t, "decoder: Llama 2")
	nfc := componentTokenizer(t, "normalizer: NFC")
	for _, c := range []struct {
		name string
		tok  *Tokenizer
		text string
		want [][2]int
	}{
		{"byte-level words", bytes, "ab b", [][2]int{{0, 2}, {2, 4}}},
		{"inside a character", bytes, "é日", [][2]int{{0, 2}, {2, 5}}},
		{"bytes of an emoji", bytes, "👍", [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 4}}},
		{"mark in front covers nothing", llama, "b a", [][2]int{{0, 0}, {0, 1}, {1, 3}}},
		{"mark joined to its word", llama, "ab a", [][2]int{{0, 2}, {2, 4}}},
		{"after an added token", llama, "<s>b", [][2]int{{0, 3}, {3, 3}, {3, 4}}},
		{"byte fallback", llama, "bÜ", [][2]int{{0, 0}, {0, 1}, {1, 2}, {2, 3}}},
		{"a character composed of two", nfc, "ae\u0301", [][2]int{{0, 4}}},
		{"dropped before and after", mustParse(t, document(hugModel, "")), "xhxx", [][2]int{{0, 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, got, err := c.tok.EncodeOffsets(c.text)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("EncodeOffsets(%q) = _, %v, %v, want %v", c.text, got, err, c.want)
			}
		})
	}
}

func componentTokenizer(t testing.TB, name string) *Tokenizer {
	t.Helper()
	data, ok := readComponents(t).tokenizers(t)[name]
	if !ok {
		t.Fatalf("no case %q in components.json", name)
	}
	return mustParse(t, data)
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	const special = `"special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]},"?":{"id":"?","ids":[0,1],"tokens":["?","<s>"]}}`
	item := func(id string) string { return `{"SpecialToken":{"id":"` + id + `","type_id":0}}` }
	text := `{"Sequence":{"id":"A","type_id":0}}`
	template := func(items ...string) string {
		return `{"type":"TemplateProcessing","single":[` + strings.Join(items, ",") + `],` + special + `}`
	}
	for _, c := range []struct {
		name, processor string
		before, after   []int32
	}{
		{"none", "null", nil, nil},
		{"byte level adds nothing", `{"type":"ByteLevel"}`, nil, nil},
		{"in front", template(item("<s>"), text), []int32{1}, nil},
		{"around", template(item("<s>"), text, item("?")), []int32{1}, []int32{0, 1}},
		{"in a sequence", `{"type":"Sequence","processors":[{"type":"ByteLevel"},` + template(item("<s>"), text) + `]}`, []int32{1}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok := mustParse(t, document(markMode, `,"post_processor":`+c.processor))
			before, after := tok.Added()
			if !slices.Equal(before, c.before) || !slices.Equal(after, c.after) {
				t.Errorf("Added() = %v, %v, want %v, %v", before, after, c.before, c.after)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	data := document(hugModel, `,"added_tokens":[{"id":20,"content":"<end>","special":true}]`)
	tok := mustParse(t, data)
	if id, ok := tok.TokenID("hug"); id != 6 || !ok {
		t.Errorf("TokenID(hug) = %d, %v, want 6", id, ok)
	}
	if id, ok := tok.TokenID("<end>"); id != 20 || !ok {
		t.Errorf("TokenID(<end>) = %d, %v, want 20", id, ok)
	}
	if _, ok := tok.TokenID("no"); ok {
		t.Error("TokenID(no) exists")
	}
	if token, ok := tok.Token(20); token != "<end>" || !ok {
		t.Errorf("Token(20) = %q, %v, want <end>", token, ok)
	}
	if _, ok := tok.Token(8); ok {
		t.Error("Token(8) exists")
	}
	if got, want := tok.SHA256(), fmt.Sprintf("%x", sha256.Sum256(data)); got != want {
		t.Errorf("SHA256() = %s, want %s", got, want)
	}
	if got := tok.Decode([]int32{6, 99, -1, 20}, true); got != "hug" {
		t.Errorf("Decode = %q, want hug: 99 and -1 do not exist, 20 is special", got)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, model, members, want string
	}{
		{"Unigram", `{"type":"Unigram","vocab":[]}`, "", `tokenizer: model "Unigram" is not supported, want BPE`},
		{"WordPiece", `{"type":"WordPiece"}`, "", `tokenizer: model "WordPiece"`},
		{"WordLevel", `{"type":"WordLevel"}`, "", `tokenizer: model "WordLevel"`},
		{"dropout", `{"dropout":0.1,"vocab":{"a":0},"merges":[]}`, "", `model.dropout "0.1"`},
		{"normalizer", hugModel, `,"normalizer":{"type":"BertNormalizer"}`, `normalizer "BertNormalizer"`},
		{"normalizer in a sequence", hugModel, `,"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Precompiled"}]}`, `normalizer "Precompiled"`},
		{"pre-tokenizer", hugModel, `,"pre_tokenizer":{"type":"UnicodeScripts"}`, `pre_tokenizer "UnicodeScripts"`},
		{"behavior", hugModel, `,"pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Lost","invert":false}`, `behavior "Lost"`},
		{"scheme", hugModel, `,"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"last"}`, `prepend_scheme "last"`},
		{"intersection", hugModel, `,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a-z&&[^b]]"},"behavior":"Isolated","invert":false}`, "&&"},
		{"post-processor", hugModel, `,"post_processor":{"type":"BertProcessing"}`, `post_processor "BertProcessing"`},
		{"decoder", hugModel, `,"decoder":{"type":"WordPiece"}`, `decoder "WordPiece"`},
		{"untyped", hugModel, `,"decoder":{}`, `decoder ""`},
		{"version", hugModel, `,"version":"2.0"`, `version "2.0"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(document(c.model, c.members))
			var unsupported *UnsupportedError
			if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %v, want an UnsupportedError with %q", err, c.want)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	bpe := func(vocab, merges string) string { return `{"vocab":` + vocab + `,"merges":` + merges + `}` }
	for _, c := range []struct {
		name, model, members, want string
	}{
		{"no model", "null", "", "model: is missing"},
		{"model of the wrong type", "[]", "", "model: "},
		{"no merges", `{"vocab":{}}`, "", "no merges"},
		{"vocab is a list", bpe(`["a"]`, "[]"), "", "want an object"},
		{"id is a fraction", bpe(`{"a":0.5}`, "[]"), "", "id 0.5"},
		{"id is negative", bpe(`{"a":-1}`, "[]"), "", "id -1"},
		{"id is too large", bpe(`{"a":2147483648}`, "[]"), "", "id 2147483648"},
		{"id is an object", bpe(`{"a":{"b":1}}`, "[]"), "", `token "a" has id`},
		{"same id twice", bpe(`{"a":1,"b":1}`, "[]"), "", `"a" and "b" have the same id 1`},
		{"same token twice", bpe(`{"a":1,"\u0061":2}`, "[]"), "", `"a" is there twice`},
		{"merge of one part", bpe(`{"a":0}`, `["a"]`), "", "merge 0"},
		{"merge of three parts", bpe(`{"a":0}`, `["a a a"]`), "", "merge 0"},
		{"pair of three", bpe(`{"a":0}`, `[["a","a","a"]]`), "", "has 3 parts"},
		{"merges of both forms", bpe(`{"a":0}`, `["a a",["a","a"]]`), "", "model.merges"},
		{"merge of an unknown token", bpe(`{"a":0,"ab":1}`, `["a b"]`), "", `"b" is not in the vocabulary`},
		{"merge into an unknown token", bpe(`{"a":0,"b":1}`, `["a b"]`), "", `"ab", which is not`},
		{"same merge twice", bpe(`{"a":0,"b":1,"ab":2}`, `["a b","a b"]`), "", "by merge 0"},
		{"added token of another id", hugModel, `,"added_tokens":[{"id":9,"content":"hug"}]`, "has id 9, but 6"},
		{"added token on another's id", hugModel, `,"added_tokens":[{"id":6,"content":"<s>"}]`, `which is "hug"`},
		{"added tokens on one id", hugModel, `,"added_tokens":[{"id":9,"content":"x"},{"id":9,"content":"y"}]`, "same id 9"},
		{"added token without id", hugModel, `,"added_tokens":[{"content":"x"}]`, "no id"},
		{"added token without content", hugModel, `,"added_tokens":[{"id":9}]`, "no content"},
		{"added token is null", hugModel, `,"added_tokens":[null]`, "no content"},
		{"regular expression", hugModel, `,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"}`, "regular expression"},
		{"no pattern", hugModel, `,"normalizer":{"type":"Replace","content":""}`, "pattern: is missing"},
		{"empty pattern", hugModel, `,"normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"}`, "pattern"},
		{"replacement of two characters", hugModel, `,"pre_tokenizer":{"type":"Metaspace","replacement":"ab"}`, "want one character"},
		{"template without text", hugModel, `,"post_processor":{"type":"TemplateProcessing","single":[],"special_tokens":{}}`, "0 sequences"},
		{"template with an unknown token", hugModel, `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]}`, `"x" is not in`},
		{"template with an unknown id", hugModel, `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[77]}}}`, "token 77"},
		{"deep sequences", hugModel, `,"decoder":` + strings.Repeat(`{"type":"Sequence","decoders":[`, 40) + strings.Repeat(`]}`, 40), "inside each other"},
		{"sequence without members", hugModel, `,"decoder":{"type":"Sequence"}`, "decoder.decoders: is missing"},
		{"sequence with a null", hugModel, `,"decoder":{"type":"Sequence","decoders":[null]}`, "null member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Parse(document(c.model, c.members))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %v, %v, want an error with %q", tok, err, c.want)
			}
		})
	}
	for _, data := range []string{"", "{", "[]", "null", `"x"`} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("Parse(%q) gives no error", data)
		}
	}
}

func TestEncodeRefusesText(t *testing.T) {
	t.Parallel()
	_, err := mustParse(t, document(hugModel, "")).Encode("hug\xff")
	if want := "tokenizer: text is not UTF-8 at byte 3"; err == nil || err.Error() != want {
		t.Errorf("Encode = %v, want %q", err, want)
	}
	tok := mustParse(t, document(`{"unk_token":"?","vocab":{"a":0},"merges":[]}`, ""))
	checkIDs(t, tok, "aa", []int32{0, 0})
	if _, err := tok.Encode("ab"); err == nil || !strings.Contains(err.Error(), `unknown token "?"`) {
		t.Errorf("Encode = %v, want an error about the unknown token", err)
	}
}

// TestLongPiece encodes a piece that quadratic merging would take minutes for.
func TestLongPiece(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	tok := mustParse(t, document(hugModel, ""))
	ids, err := tok.Encode(strings.Repeat("hug", n))
	if err != nil || len(ids) != n || slices.ContainsFunc(ids, func(id int32) bool { return id != 6 }) {
		t.Errorf("Encode = %d ids, %v, want %d times 6", len(ids), err, n)
	}
}

func TestConcurrentEncode(t *testing.T) {
	t.Parallel()
	f := readComponents(t)
	files := f.tokenizers(t)
	for _, c := range f.Cases[:20] {
		tok := mustParse(t, files[c.Name])
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for i := range f.Texts {
					i = (i*7 + g) % len(f.Texts)
					got, err := tok.Encode(f.Texts[i])
					if err != nil || !slices.Equal(got, c.IDs[i]) {
						t.Errorf("%s: Encode(%q) = %v, %v, want %v", c.Name, f.Texts[i], got, err, c.IDs[i])
					}
				}
			})
		}
		all.Wait()
	}
}

func TestDecodeBroken(t *testing.T) {
	t.Parallel()
	// The examples of table 3-8 to 3-11 of the Unicode standard, section 3.9.
	for raw, want := range map[string]string{
		"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82A": strings.Repeat("\uFFFD", 8) + "A",
		"\xED\xA0\x80\xED\xBF\xBF\xED\xAFA": strings.Repeat("\uFFFD", 8) + "A",
		"\xF4\x91\x92\x93\xFFA\x80\xBFB":    strings.Repeat("\uFFFD", 5) + "A\uFFFD\uFFFDB",
		"\xE1\x80\xE2\xF0\x91\x92\xF1\xBFA": strings.Repeat("\uFFFD", 4) + "A",
		"plain \u65e5\xE6\x97":              "plain \u65e5\uFFFD",
	} {
		if diff := cmp.Diff(want, validUTF8([]byte(raw))); diff != "" {
			t.Errorf("validUTF8(%q) (-want +got):\n%s", raw, diff)
		}
	}
}
