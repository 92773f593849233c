package encode

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

func mustEncode(t *testing.T, e *Encoder, p datasets.Pair) Pair {
	t.Helper()
	got, err := e.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The keys are Python's hashlib.sha256(struct.pack("<2i", 113, 58)).digest()[:16], and with 258 in front.
func TestPromptKeyIsItsDefinition(t *testing.T) {
	for _, c := range []struct{ before, want string }{
		{"", "38f168cbfe74299641003a6280128878"},
		{"<s>", "ca5bb4d81531750d5879fe792691504f"},
	} {
		got := mustEncode(t, testEncoder(t, testTokenizer(t, c.before, ""), "", nil), plain("q:", "x", "y"))
		if key := hex.EncodeToString(got.PromptKey[:]); key != c.want {
			t.Errorf("with %q in front the key is %s, want %s", c.before, key, c.want)
		}
	}
}

// TestOnePromptHasOneKey holds pairs of one prompt whose cached prompts differ, each told from another prompt.
func TestOnePromptHasOneKey(t *testing.T) {
	thinks := strings.Replace(chatML, "assistant\n{%", "assistant\n<think>{%", 1)
	byUser := conversation("x", "y", user("h"))
	byUser.Chosen.Messages[0].Role = "user"
	for _, c := range []struct {
		name, template string
		change         func(*Options)
		a, b, other    datasets.Pair
	}{
		{
			"keep_end cuts what the longer completion needs", "", func(o *Options) { o.MaxLength, o.Truncation = 6, KeepEnd },
			plain("12345", "xyz", "w"), plain("12345", "x", "w"), plain("02345", "xyz", "w"),
		},
		{
			"the opening is how some answers begin", thinks, nil,
			conversation("<thin", "<thanks", user("h")), conversation("x", "y", user("h")), conversation("x", "y", user("i")),
		},
		{"an answer by another role", thinks, nil, byUser, conversation("x", "y", user("h")), conversation("x", "y", user("i"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := testEncoder(t, testTokenizer(t, "<s>", ""), c.template, c.change)
			a, b, other := mustEncode(t, e, c.a), mustEncode(t, e, c.b), mustEncode(t, e, c.other)
			if cmp.Equal(a.Prompt, b.Prompt) {
				t.Fatalf("both keep the prompt %v: nothing is tried", a.Prompt)
			}
			if a.PromptKey != b.PromptKey {
				t.Errorf("prompts %v and %v of one text have keys %x and %x", a.Prompt, b.Prompt, a.PromptKey, b.PromptKey)
			}
			if a.PromptKey == other.PromptKey {
				t.Error("another prompt has the same key")
			}
		})
	}
}

// A boundary that moves back makes another prompt, and pairs of that one have its key.
func TestKeyOfAMovedPrompt(t *testing.T) {
	e := testEncoder(t, testTokenizer(t, "", ""), "", nil)
	moved, want := mustEncode(t, e, implicit("q a", "b", "c")), mustEncode(t, e, plain("q", "x", "y"))
	if diff := cmp.Diff(ids("q"), moved.Prompt); diff != "" {
		t.Fatalf("the boundary did not move:\n%s", diff)
	}
	if moved.PromptKey != want.PromptKey {
		t.Errorf("the key is %x, want that of the prompt %q, %x", moved.PromptKey, "q", want.PromptKey)
	}
}

// Whatever the completions, the lengths and the side that goes, a given prompt has the key of itself.
func TestPromptKeyProperties(t *testing.T) {
	tok := testTokenizer(t, "", "")
	alphabet := rapid.StringOfN(rapid.RuneFrom([]rune("ab a\né日")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		prompt := alphabet.Draw(t, "prompt")
		encode := func(label, prompt string) (p Pair, ok bool) {
			opt := DefaultOptions()
			opt.MaxLength = rapid.IntRange(2, 30).Draw(t, label+" max")
			opt.Truncation = rapid.SampledFrom([]Truncation{KeepStart, KeepEnd}).Draw(t, label+" truncation")
			e, err := New(tok, Config{Special: testSpecial}, opt)
			if err != nil {
				t.Fatal(err)
			}
			p, err = e.Encode(plain(prompt, alphabet.Draw(t, label+" chosen"), alphabet.Draw(t, label+" rejected")))
			if _, row := errors.AsType[*datasets.RowError](err); err != nil && !row {
				t.Fatal(err)
			}
			return p, err == nil
		}
		a, ok := encode("a", prompt)
		b, ok2 := encode("b", prompt)
		c, ok3 := encode("c", "!"+prompt)
		if ok && ok2 && a.PromptKey != b.PromptKey {
			t.Fatalf("prompt %q has keys %x and %x", prompt, a.PromptKey, b.PromptKey)
		}
		if ok && ok3 && a.PromptKey == c.PromptKey {
			t.Fatalf("prompts %q and %q have one key", prompt, "!"+prompt)
		}
	})
}
