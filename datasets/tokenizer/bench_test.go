package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proseText is English made up for this benchmark, with the punctuation,
// digits and line ends of a chat.
const proseText = "Hello! I ordered 2 lamps on March 14th, and only one has arrived so far.\n\n" +
	"I'm sorry to hear that; let's see what we can do. Could you tell me the order number (it starts with \"LX-\")?\n" +
	"It's LX-20931. I've been waiting for 3 weeks, which isn't what you'd promised...\n" +
	"Thank you. The second parcel left our warehouse yesterday & should be with you by Friday, before 6 p.m.\n"

func BenchmarkEncode(b *testing.B) {
	paths, _ := filepath.Glob(filepath.Join(sharedDir, "*", "*", "tokenizer.json"))
	if len(paths) == 0 {
		b.Skip("no shared folder beside the checkout")
	}
	data, err := os.ReadFile(shared(b, "data", "foundry-orca-dpo", "orca_dpo_pairs", "validation.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	texts := map[string]string{"repeated": strings.Repeat(proseText, 20), "varied": string(data[:1<<19])}
	for _, path := range paths {
		tok := load(b, path)
		for name, text := range texts {
			b.Run("tokenizer="+filepath.Base(filepath.Dir(path))+"/text="+name, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := tok.Encode(text); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
