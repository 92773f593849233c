package tokenizer

import "testing"

// FuzzParse holds that no file makes Parse panic, and that what it accepts
// encodes and decodes without one.
func FuzzParse(f *testing.F) {
	f.Add(document(hugModel, ""))
	f.Add(document(markMode, `,"pre_tokenizer":{"type":"Metaspace","replacement":"▁"}`))
	for _, data := range readComponents(f).tokenizers(f) {
		if len(data) < 1<<14 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data)
		if err != nil {
			if tok != nil {
				t.Errorf("Parse returns a tokenizer with the error %v", err)
			}
			return
		}
		for _, text := range []string{"", " a", "hug é日 <s> 12!"} {
			ids, err := tok.Encode(text)
			if err == nil {
				tok.Decode(ids, false)
			}
		}
	})
}

// FuzzRoundTrip holds that a byte-level tokenizer gives every text back, and
// that its tokens cover the text without a gap.
func FuzzRoundTrip(f *testing.F) {
	tok := componentTokenizer(f, "ByteLevel without a space in front, with regex")
	for _, text := range readComponents(f).Texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids, offsets, err := tok.EncodeOffsets(text)
		if err != nil {
			return
		}
		if got := tok.Decode(ids, false); got != text {
			t.Errorf("Decode(Encode(%q)) = %q", text, got)
		}
		at := 0
		for i, o := range offsets {
			if o[0] != at || o[1] <= at {
				t.Errorf("%q: token %d is at %v, want it to start at %d", text, i, o, at)
			}
			at = o[1]
		}
		if at != len(text) {
			t.Errorf("%q: tokens end at %d of %d", text, at, len(text))
		}
	})
}
