package encode

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
)

// The test tokenizer: byte-level BPE, ids 0…255 are the bytes, 256 "ab", 257 " a", then the special tokens.
const (
	idAB = 256 + iota
	idSpaceA
	idBOS
	idEOS
	idStart
	idEnd
)

var testSpecial = map[string]string{"bos_token": "<s>", "eos_token": "</s>"}

// byteChar is the character that stands for a byte in byte-level vocabularies: itself where it prints, else 256+n.
func byteChar(b int) string {
	n := 0
	for c := range 256 {
		if !(c >= '!' && c <= '~' || c >= 0xa1 && c <= 0xac || c >= 0xae) {
			if c == b {
				return string(rune(256 + n))
			}
			n++
		} else if c == b {
			return string(rune(c))
		}
	}
	panic("not a byte")
}

// testTokenizer builds the tokenizer; before and after are special tokens its post-processor puts around a text.
func testTokenizer(t testing.TB, before, after string) *tokenizer.Tokenizer {
	t.Helper()
	vocab := map[string]int{"ab": idAB, "Ġa": idSpaceA}
	for b := range 256 {
		vocab[byteChar(b)] = b
	}
	var added []map[string]any
	ids := map[string]int{"<s>": idBOS, "</s>": idEOS, "<|im_start|>": idStart, "<|im_end|>": idEnd}
	for _, token := range []string{"<s>", "</s>", "<|im_start|>", "<|im_end|>"} {
		added = append(added, map[string]any{
			"id": ids[token], "content": token, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		})
	}
	conf := map[string]any{
		"added_tokens": added, "normalizer": nil,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
		"decoder":       map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{"a b", "Ġ a"}},
	}
	if before+after != "" {
		single, special := []any{}, map[string]any{}
		put := func(token string) {
			if token != "" {
				single = append(single, map[string]any{"SpecialToken": map[string]any{"id": token, "type_id": 0}})
				special[token] = map[string]any{"id": token, "ids": []int{ids[token]}, "tokens": []string{token}}
			}
		}
		put(before)
		single = append(single, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}})
		put(after)
		conf["post_processor"] = map[string]any{"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
	}
	data, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func testEncoder(t testing.TB, tok *tokenizer.Tokenizer, template string, change func(*Options)) *Encoder {
	t.Helper()
	opt := DefaultOptions()
	if change != nil {
		change(&opt)
	}
	e, err := New(tok, Config{Special: testSpecial, ChatTemplate: template, TemplateFile: "test"}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ids spells ids: a string stands for its bytes, a number for itself.
func ids(parts ...any) []int32 {
	var out []int32
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			for _, b := range []byte(part) {
				out = append(out, int32(b))
			}
		case int:
			out = append(out, int32(part))
		}
	}
	return out
}

func plain(prompt, chosen, rejected string) datasets.Pair {
	return datasets.Pair{
		File: "f.jsonl", Row: 3, FileRow: 3, Weight: 1, ID: datasets.ID{7},
		Prompt: datasets.Text{Plain: prompt}, Chosen: datasets.Text{Plain: chosen}, Rejected: datasets.Text{Plain: rejected},
	}
}

func implicit(prompt, chosen, rejected string) datasets.Pair {
	p := plain(prompt, chosen, rejected)
	p.PromptImplicit = true
	return p
}

func conversation(chosen, rejected string, prompt ...datasets.Message) datasets.Pair {
	p := plain("", "", "")
	p.Prompt.Messages = prompt
	p.Chosen.Messages = []datasets.Message{{Role: "assistant", Content: chosen}}
	p.Rejected.Messages = []datasets.Message{{Role: "assistant", Content: rejected}}
	return p
}

func user(content string) datasets.Message { return datasets.Message{Role: "user", Content: content} }

const chatML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// withoutKey leaves PromptKey to its own tests.
var withoutKey = cmpopts.IgnoreFields(Pair{}, "PromptKey")

func TestEncodeHandWorked(t *testing.T) {
	bare, bos, both := testTokenizer(t, "", ""), testTokenizer(t, "<s>", ""), testTokenizer(t, "<s>", "</s>")
	for _, c := range []struct {
		name                     string
		tok                      *tokenizer.Tokenizer
		template                 string
		in                       datasets.Pair
		prompt, chosen, rejected []int32
		apart                    bool
	}{
		{"plain text is closed with EOS", bare, "", plain("q:", "x", "yz"), ids("q:"), ids("x", idEOS), ids("yz", idEOS), false},
		{"EOS in the text is not doubled", bare, "", plain("q:", "x</s>", "y"), ids("q:"), ids("x", idEOS), ids("y", idEOS), false},
		{"a token across the boundary", bare, "", plain("qa", "bx", "y"), ids("qa"), ids("bx", idEOS), ids("y", idEOS), true},
		{"a merge inside a completion", bare, "", plain("q", "ab a", "b"), ids("q"), ids(idAB, idSpaceA, idEOS), ids("b", idEOS), false},
		{"BOS of the post-processor", bos, "", plain("q", "x", "y"), ids(idBOS, "q"), ids("x", idEOS), ids("y", idEOS), false},
		{"BOS in the text is not doubled", bos, "", plain("<s>q", "x", "y"), ids(idBOS, "q"), ids("x", idEOS), ids("y", idEOS), false},
		{"EOS of the post-processor", both, "", plain("q", "x", "y</s>"), ids(idBOS, "q"), ids("x", idEOS), ids("y", idEOS), false},
		{"empty prompt takes BOS", bare, "", plain("", "x", "y"), ids(idBOS), ids("x", idEOS), ids("y", idEOS), false},
		// BPE merges "a b" first: " ab" is " "+"ab" but " ac" is " a"+"c", and only "q" is a token of both
		{"implicit prompt moves to a token", bare, "", implicit("q a", "b", "c"), ids("q"), ids(" ", idAB, idEOS), ids(idSpaceA, "c", idEOS), false},
		{"implicit prompt on a token stays", bare, "", implicit("q", " ab", " c"), ids("q"), ids(" ", idAB, idEOS), ids(" c", idEOS), false},
		{
			"chat has its own end of turn", bare, chatML, conversation("ab", "c", user("hi")),
			ids(idStart, "user\nhi", idEnd, "\n", idStart, "assistant\n"), ids(idAB, idEnd, "\n"), ids("c", idEnd, "\n"), false,
		},
		{
			"chat with BOS of the template", bos, "<s>" + chatML, conversation("x", "y", user("h")),
			ids(idBOS, idStart, "user\nh", idEnd, "\n", idStart, "assistant\n"), ids("x", idEnd, "\n"), ids("y", idEnd, "\n"), false,
		},
		{
			"opening that answers lack", bare, strings.Replace(chatML, "assistant\n{%", "assistant\n<think>{%", 1), conversation("x", "y", user("h")),
			ids(idStart, "user\nh", idEnd, "\n", idStart, "assistant\n"), ids("x", idEnd, "\n"), ids("y", idEnd, "\n"), false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := testEncoder(t, c.tok, c.template, nil)
			got, err := e.Encode(c.in)
			want := Pair{ID: c.in.ID, Row: 3, Weight: 1, Prompt: c.prompt, Chosen: c.chosen, Rejected: c.rejected, Apart: c.apart}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, withoutKey); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

func TestEncodeLines(t *testing.T) {
	e := testEncoder(t, testTokenizer(t, "", ""), "", func(o *Options) { o.ChatTemplate = "none" })
	got, err := e.Encode(conversation("x", "y", datasets.Message{Role: "system", Content: "s"}, user("q")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids("system: s\nuser: q\nassistant:"), got.Prompt); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(ids(" x", idEOS), got.Chosen); diff != "" {
		t.Error(diff)
	}
}

func TestTruncation(t *testing.T) {
	tok := testTokenizer(t, "", "")
	for _, c := range []struct {
		max                      int
		mode                     Truncation
		prompt, chosen, rejected string
		cut                      bool
		reason                   datasets.Reason
	}{
		// "12345" + "abc"→ 5 + 'xyz' + EOS = 4, 'w' + EOS = 2
		{9, KeepStart, "12345", "xyz$", "w$", false, ""},
		{8, KeepStart, "12345", "xyz", "w$", true, ""},
		{7, KeepStart, "12345", "xy", "w$", true, ""},
		{6, KeepStart, "12345", "x", "w", true, ""},
		{5, KeepStart, "", "", "", false, datasets.PromptTooLong},
		{4, KeepStart, "", "", "", false, datasets.PromptTooLong},
		{9, KeepEnd, "12345", "xyz$", "w$", false, ""},
		{8, KeepEnd, "2345", "xyz$", "w$", true, ""},
		{5, KeepEnd, "5", "xyz$", "w$", true, ""},
		{4, KeepEnd, "5", "yz$", "w$", true, ""},
		{3, KeepEnd, "5", "z$", "w$", true, ""},
		{2, KeepEnd, "", "", "", true, datasets.IdenticalCompletions}, // both are "$"
	} {
		t.Run(fmt.Sprintf("%s=%d", c.mode, c.max), func(t *testing.T) {
			e := testEncoder(t, tok, "", func(o *Options) { o.MaxLength, o.Truncation = c.max, c.mode })
			got, err := e.Encode(plain("12345", "xyz", "w"))
			if row, ok := errors.AsType[*datasets.RowError](err); ok || c.reason != "" {
				if !ok || row.Reason != c.reason {
					t.Fatalf("got %v, want %s", err, c.reason)
				}
				return
			}
			spell := func(s string) []int32 {
				out := ids(s)
				if rest, ok := strings.CutSuffix(s, "$"); ok {
					out = ids(rest, idEOS)
				}
				return out
			}
			want := Pair{ID: datasets.ID{7}, Row: 3, Weight: 1, Prompt: spell(c.prompt), Chosen: spell(c.chosen), Rejected: spell(c.rejected), Truncated: c.cut}
			if diff := cmp.Diff(want, got, withoutKey); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

func TestRowErrors(t *testing.T) {
	strict := "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + chatML
	// the system text moves to the last user turn: the prompt changes once an answer follows
	moving := "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}" +
		"{{ m.content }}]{% elif m.role == 'assistant' %}{{ m.content }};{% endif %}{% endfor %}"
	system := datasets.Message{Role: "system", Content: "be good"}
	for _, c := range []struct {
		name     string
		template string
		in       datasets.Pair
		reason   datasets.Reason
		text     string
	}{
		{"empty completion", "", plain("q", "", "x"), datasets.EmptyCompletion, `column "chosen"`},
		{"empty turn", chatML, conversation("x", "", user("q")), datasets.EmptyCompletion, `column "rejected"`},
		{"same ids", "", plain("q", "x", "x</s>"), datasets.IdenticalCompletions, "same 2 tokens"},
		{"template refuses", strict, conversation("x", "y", system, user("q")), datasets.BadTemplate, "no system turn"},
		{"prompt that changes", moving, conversation("x", "y", system, user("q")), datasets.BadTemplate, "differently"},
		{"not UTF-8", "", plain("q\xff", "x", "y"), datasets.InvalidText, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := testEncoder(t, testTokenizer(t, "", ""), c.template, nil).Encode(c.in)
			row, ok := errors.AsType[*datasets.RowError](err)
			if !ok || row.Reason != c.reason || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %s with %q", err, c.reason, c.text)
			}
		})
	}
}

func TestNoPrompt(t *testing.T) {
	e, err := New(testTokenizer(t, "", ""), Config{Special: map[string]string{"eos_token": "</s>"}}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Encode(plain("", "x", "y"))
	if row, ok := errors.AsType[*datasets.RowError](err); !ok || row.Reason != datasets.NoPrompt {
		t.Errorf("got %v, want %s", err, datasets.NoPrompt)
	}
	if _, err := e.Prompt(datasets.Text{}); err == nil {
		t.Error("an empty prompt without BOS was accepted")
	}
	if _, err := e.Encode(conversation("x", "y", user("q"))); err == nil || !strings.Contains(err.Error(), "name a template file") {
		t.Errorf("got %v, want a NoTemplateError", err)
	}
}

func TestPromptForGeneration(t *testing.T) {
	e := testEncoder(t, testTokenizer(t, "<s>", ""), chatML, nil)
	got, err := e.Prompt(datasets.Text{Messages: []datasets.Message{user("q")}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids(idBOS, idStart, "user\nq", idEnd, "\n", idStart, "assistant\n"), got); diff != "" {
		t.Error(diff)
	}
	if got := e.Decode(append(got, idEOS)); got != "user\nq\nassistant\n" {
		t.Errorf("decoded %q", got)
	}
	if diff := cmp.Diff([]int32{idEOS}, e.EOS()); diff != "" {
		t.Error(diff)
	}
}

// Whatever the texts: the ids say the texts, lengths hold, nothing is empty, and a pair not apart is the joint encoding.
func TestEncodeProperties(t *testing.T) {
	tok := testTokenizer(t, "", "")
	alphabet := rapid.StringOfN(rapid.RuneFrom([]rune("ab a\n éß日😀x")), 0, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		opt := DefaultOptions()
		opt.MaxLength = rapid.IntRange(2, 40).Draw(t, "max")
		opt.Truncation = rapid.SampledFrom([]Truncation{KeepStart, KeepEnd}).Draw(t, "truncation")
		e, err := New(tok, Config{Special: testSpecial}, opt)
		if err != nil {
			t.Fatal(err)
		}
		p := plain(alphabet.Draw(t, "prompt"), alphabet.Draw(t, "chosen"), alphabet.Draw(t, "rejected"))
		p.PromptImplicit = rapid.Bool().Draw(t, "implicit")
		got, err := e.Encode(p)
		if err != nil {
			if _, ok := errors.AsType[*datasets.RowError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		for _, c := range []struct {
			ids  []int32
			text string
		}{{got.Chosen, p.Chosen.Plain}, {got.Rejected, p.Rejected.Plain}} {
			if len(c.ids) == 0 || len(got.Prompt) == 0 || len(got.Prompt)+len(c.ids) > opt.MaxLength {
				t.Fatalf("%d prompt and %d completion ids, max %d", len(got.Prompt), len(c.ids), opt.MaxLength)
			}
			if got.Truncated {
				continue
			}
			all := slices.Concat(got.Prompt, c.ids)
			if c.ids[len(c.ids)-1] != idEOS {
				t.Fatalf("%v isn't closed", c.ids)
			}
			if text := e.Decode(all); text != p.Prompt.Plain+c.text {
				t.Fatalf("ids say %q, want %q", text, p.Prompt.Plain+c.text)
			}
			joint, err := tok.Encode(p.Prompt.Plain + c.text)
			if err != nil {
				t.Fatal(err)
			}
			if all = slices.DeleteFunc(all, func(id int32) bool { return id >= idBOS }); !got.Apart && !slices.Equal(all, joint) {
				t.Fatalf("ids %v, want %v", all, joint)
			}
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	e := testEncoder(t, testTokenizer(t, "<s>", ""), "{% macro f(x) %}{{ x }}{% endmacro %}"+strings.Replace(chatML, "m.content", "f(m.content)", 1), nil)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				text := fmt.Sprintf("w%d i%d", w, i)
				got, err := e.Encode(conversation(text, "no", user(text)))
				if err != nil || e.Decode(got.Chosen) != text+"\n" {
					t.Errorf("%s: got %q, %v", text, e.Decode(got.Chosen), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestIdentityMoves(t *testing.T) {
	base := testEncoder(t, testTokenizer(t, "", ""), chatML, nil).Identity()
	for name, e := range map[string]*Encoder{
		"tokenizer":  testEncoder(t, testTokenizer(t, "<s>", ""), chatML, nil),
		"template":   testEncoder(t, testTokenizer(t, "", ""), "{# other #}"+chatML, nil),
		"max length": testEncoder(t, testTokenizer(t, "", ""), chatML, func(o *Options) { o.MaxLength = 7 }),
		"truncation": testEncoder(t, testTokenizer(t, "", ""), chatML, func(o *Options) { o.Truncation = KeepEnd }),
		"none":       testEncoder(t, testTokenizer(t, "", ""), chatML, func(o *Options) { o.ChatTemplate = "none" }),
		"date":       testEncoder(t, testTokenizer(t, "", ""), "{{ strftime_now('%Y') }}"+chatML, nil),
	} {
		if cmp.Equal(base, e.Identity()) {
			t.Errorf("%s: identity stays %v", name, base)
		}
	}
	if diff := cmp.Diff(base, testEncoder(t, testTokenizer(t, "", ""), chatML, func(o *Options) { o.Date = o.Date.AddDate(1, 0, 0) }).Identity()); diff != "" {
		t.Errorf("a date that no template prints moves the identity:\n%s", diff)
	}
}
