package tokenizer

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestManyMarks holds that more than 30 marks in a row get no U+034F between
// them, which x/text's own normal forms put there.
func TestManyMarks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		form       norm.Form
		text, want string
	}{
		{norm.NFC, "e" + strings.Repeat("\u0301", 40), "é" + strings.Repeat("\u0301", 39)},
		{norm.NFD, "é" + strings.Repeat("\u0301", 40), "e" + strings.Repeat("\u0301", 41)},
		{norm.NFC, "a" + strings.Repeat("\u0301\u0323", 20), "ạ" + strings.Repeat("\u0323", 19) + strings.Repeat("\u0301", 20)},
		{norm.NFKD, "ﬁ" + strings.Repeat("\u0301", 40), "fi" + strings.Repeat("\u0301", 40)},
	} {
		got, err := unicodeForm(c.form)(span{text: c.text})
		if err != nil || got.text != c.want {
			t.Errorf("form %d of %+q = %+q, %v, want %+q", c.form, c.text, got.text, err, c.want)
		}
	}
}

// TestForms holds the normal forms against x/text's where those add nothing,
// and each byte's origin against the bounds of the text.
func TestForms(t *testing.T) {
	t.Parallel()
	char := rapid.OneOf(
		rapid.SampledFrom([]rune("aeé가각かﬁÅ\u0301\u0323\u0327\u0344\u0345\u3099\u1100\u1161\u11a8\u09c7\u09be\u0958")),
		rapid.Rune(),
	)
	for name, form := range map[string]norm.Form{"NFC": norm.NFC, "NFD": norm.NFD, "NFKC": norm.NFKC, "NFKD": norm.NFKD} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				text := rapid.StringOfN(char, 0, 12, -1).Draw(t, "text")
				got, err := unicodeForm(form)(span{text: text})
				if want := form.String(text); err != nil || got.text != want {
					t.Fatalf("%+q becomes %+q, %v, want %+q", text, got.text, err, want)
				}
				at := 0
				for i := range got.text {
					o := got.origin(i, i+1)
					if o[0] < at || o[1] <= o[0] || o[1] > len(text) {
						t.Fatalf("%+q: byte %d comes from %v after %d", text, i, o, at)
					}
					at = o[0]
				}
			})
		})
	}
}
