package datasets

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestSafeCut(t *testing.T) {
	cases := []struct{ name, chosen, rejected, prompt string }{
		{"words", "The sky is blue.", "The sky is green.", "The sky is"},
		{"inside a word", "The cat", "The car", "The"},
		{"first word differs", "abc", "abd", ""},
		{"one is the beginning of the other", "The sky", "The sky is", "The"},
		{"one word is the beginning of the other", "abc", "abcdef", ""},
		{"numbers", "Q: 1 A: 12", "Q: 1 A: 13", "Q: 1 A:"},
		{"decimals", "It is 3.14", "It is 3.15", "It is"},
		{"grouped by commas", "It is 1,000", "It is 1,200", "It is"},
		{"grouped by spaces", "It is 1 000", "It is 1 200", "It is"},
		{"grouped by no-break spaces", "It is 1\u00a0000", "It is 1\u00a0200", "It is"},
		{"negative", "x = -5", "x = -7", "x ="},
		{"contraction", "I don't", "I don", "I"},
		{"contraction against word", "I can't go", "I can go", "I"},
		{"inside a character", "a \u00e9", "a \u00e8", "a"},
		{"inside a character of four bytes", "a \U0001f600", "a \U0001f601", "a"},
		{"combining mark", "un cafe\u0301", "un cafe", "un"},
		{"mark on a space", "a b \u0301c", "a b \u0301d", "a"},
		{"emoji sequence", "ok \U0001f468\u200d\U0001f469", "ok \U0001f468\u200d\U0001f467", "ok"},
		{"white space goes with the completion", "Hi \n\n there", "Hi \n\n you", "Hi"},
		{"white space differs", "a b", "a\nb", "a"},
		{"white space against punctuation", "a b c", "a b.", "a"},
		{"CR LF", "a\r\nb", "a\r\nc", "a"},
		{"blank rest", "a b ", "a b c", "a"},
		{"leading white space only", " a", " b", ""},
		{"Chinese", "问题：甲", "问题：乙", "问题："},
		{"Chinese word", "天气很好", "天气不好", ""},
		{"Chinese, closing marks stay together", "好。。甲", "好。。乙", "好。。"},
		{"turns in text", "\n\nHuman: Hi\n\nAssistant: Yes", "\n\nHuman: Hi\n\nAssistant: No", "\n\nHuman: Hi\n\nAssistant:"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.chosen[:safeCut(c.chosen, c.rejected)]; got != c.prompt {
				t.Errorf("prompt is %q, want %q", got, c.prompt)
			}
			if got := c.rejected[:safeCut(c.rejected, c.chosen)]; got != c.prompt {
				t.Errorf("prompt is %q with the sides exchanged, want %q", got, c.prompt)
			}
		})
	}
}

// TestSafeCutProperties draws texts from an alphabet of awkward characters.
func TestSafeCutProperties(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "b", " ", "\n", "1", ".", "é", "\u0301", "。", "：", "\u200d", "😀", "\u00a0", "\r\n"})
	rapid.Check(t, func(t *rapid.T) {
		head := strings.Join(rapid.SliceOf(piece).Draw(t, "head"), "")
		a := head + strings.Join(rapid.SliceOf(piece).Draw(t, "chosen"), "")
		b := head + strings.Join(rapid.SliceOf(piece).Draw(t, "rejected"), "")
		n := safeCut(a, b)
		if n != safeCut(b, a) {
			t.Fatal("the cut depends on the order")
		}
		if n == 0 {
			return
		}
		if a[:n] != b[:n] || isBlank(a[:n]) || isBlank(a[n:]) || isBlank(b[n:]) {
			t.Fatalf("%q and %q cut at %d", a, b, n)
		}
		for _, rest := range []string{a[n:], b[n:]} {
			if !utf8.ValidString(rest) || strings.HasPrefix(rest, "\u0301") || strings.HasPrefix(rest, "\u200d") {
				t.Fatalf("%q begins inside a character", rest)
			}
		}
	})
}

// TestTRLPrompts holds the split against that of TRL's extract_prompt. TRL cuts
// at the first character that differs, less a space before it, so it halves
// words and numbers, whose tokens are then not those of the whole text; and it
// keeps rows without a prompt, with equal completions, or that crash it.
func TestTRLPrompts(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "golden", "trl_golden.json"))
	if err != nil {
		t.Skipf("golden file is not here: %v", err)
	}
	var golden struct {
		Cases []struct {
			Chosen, Rejected string
			Out              struct{ Prompt, Chosen, Rejected string }
		} `json:"extract_prompt_cases"`
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	same := map[string]bool{"The sky is blue.": true} // TRL's cut is at a word's end
	ours := map[string]string{                        // chosen → our prompt or reason
		"abc":        string(NoPrompt),             // TRL: "ab"
		"same text":  string(IdenticalCompletions), // TRL: "same tex"
		"x y":        string(NoPrompt),             // TRL: an empty prompt
		"hi ":        string(NoPrompt),             // TRL's own leftover index makes "hi" of it
		"Q: 1 A: 12": "Q: 1 A:",                    // TRL: "Q: 1 A: 1", half a number
		"héllo é1":   "héllo",                      // TRL: "héllo é", half a word
		"":           string(EmptyCompletion),      // TRL: UnboundLocalError
	}
	for _, c := range golden.Cases {
		want := ours[c.Chosen]
		if same[c.Chosen] {
			want = c.Out.Prompt
		}
		r := row{}
		r.cells[colChosen] = value{kind: text, str: c.Chosen}
		r.cells[colRejected] = value{kind: text, str: c.Rejected}
		var p Pair
		got := ""
		if re := pairOf(&r, DefaultColumns().names(), &p); re != nil {
			got = string(re.Reason)
		} else if got = p.Prompt.Plain; got+p.Chosen.Plain != c.Chosen || got+p.Rejected.Plain != c.Rejected {
			t.Errorf("%q and %q: the parts %+v do not make up the whole", c.Chosen, c.Rejected, p)
		}
		if got != want {
			t.Errorf("%q and %q: got %q, want %q (TRL %q)", c.Chosen, c.Rejected, got, want, c.Out.Prompt)
		}
	}
}
